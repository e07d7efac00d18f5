//! How large the module's zone is to be, by what the configuration has.

use super::index::index_size;
use super::records::{Reason, Server, Upstream};

/// Least size of the zone, in bytes: what it holds for some 9000 servers, with as many to come. Pages that nobody has
/// written to cost no memory, but for nginx's word on each, 0.1 MB in all.
const LEAST: usize = 16 * 1024 * 1024;

/// Size of a page of nginx's slab at least, in bytes: what is larger than half of it takes whole ones.
const PAGE: usize = 4096;

/// Bytes of text of a server that is not there yet: an address with its port, twice.
const TEXTS: usize = 64;

/// Memory that the records of a configuration take.
#[derive(Default)]
pub struct Need {
    /// Servers that were counted.
    pub servers: usize,
    /// Bytes, as nginx's slab gives them out.
    bytes: usize,
}

impl Need {
    /// Counts an upstream: by the length of its name, those of the texts of its servers, each with its address, and the
    /// number of servers that it must have room for.
    pub fn add(&mut self, name: usize, texts: impl Iterator<Item = usize>, capacity: usize) {
        let records = chunk(size_of::<Server>()) + chunk(size_of::<[Reason; 2]>());
        let (servers, bytes) = texts.fold((0_usize, 0_usize), |(servers, bytes), texts| {
            (servers + 1, bytes.saturating_add(records).saturating_add(chunk(texts)))
        });
        let more = capacity.saturating_sub(servers);
        let servers = servers.saturating_add(more);
        let index = chunk(index_size(servers as u64));
        let own = chunk(size_of::<Upstream>()) + chunk(name) + index;
        let more = more.saturating_mul(records + chunk(TEXTS));
        self.servers = self.servers.saturating_add(servers);
        self.bytes = self.bytes.saturating_add(own).saturating_add(bytes).saturating_add(more);
    }

    /// Size of the zone, in bytes: with room for as much again, since a reload may bring other servers before those of
    /// before are forgotten. A power of two, so that most reloads find the zone at the size that it has.
    pub fn size(&self) -> usize {
        // nginx keeps three words for each page.
        let words = self.bytes / (PAGE / 32);
        let twice = self.bytes.saturating_add(words).saturating_mul(2);
        twice.checked_next_power_of_two().unwrap_or(usize::MAX).max(LEAST)
    }
}

/// What nginx's slab takes for so many bytes.
fn chunk(bytes: usize) -> usize {
    if bytes > PAGE / 2 { bytes.next_multiple_of(PAGE) } else { bytes.next_power_of_two().max(8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Megabytes for so many upstreams of so many servers with texts of so many bytes, and such a capacity.
    fn megabytes(upstreams: usize, servers: usize, texts: usize, capacity: usize) -> usize {
        let mut need = Need::default();
        for _ in 0..upstreams {
            need.add(10, std::iter::repeat_n(texts, servers), capacity);
        }
        assert_eq!(need.servers, upstreams * servers.max(capacity));
        need.size() >> 20
    }

    #[test]
    fn the_size_follows_the_configuration_in_steps() {
        let table = [
            ((0, 0, 0, 0), 16),
            ((1, 3, 30, 0), 16),
            ((1_300, 2, 30, 0), 16),
            ((1, 9_000, 30, 0), 16),
            ((1, 10_000, 30, 0), 32),
            ((10, 1_100, 30, 0), 32),
            ((1, 9_000, 250, 0), 32),
            ((1, 3, 30, 10_000), 32),
            ((1, 100_000, 30, 0), 256),
            ((1, 3, 30, 100_000), 256),
        ];
        for ((upstreams, servers, texts, capacity), wanted) in table {
            let got = megabytes(upstreams, servers, texts, capacity);
            assert_eq!(got, wanted, "{upstreams} of {servers}, {texts} bytes, capacity {capacity}");
        }
    }
}
