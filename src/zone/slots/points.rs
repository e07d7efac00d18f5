//! The ring of nginx's consistent hash: which server stands at which of its points.
//!
//! It is the ring that nginx makes of the same servers when it reads a configuration, which is that of Perl's
//! `Cache::Memcached::Fast`. So a key goes to the server to which it would go after a reload.

/// Points for each unit of weight.
pub(super) const PER_WEIGHT: usize = 160;

/// A point of the ring. Points are ordered by their hash, then by their server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point(u64);

impl Point {
    /// A point of the server with this index. One word holds both, since sorting takes most of the time.
    fn new(hash: u32, server: u32) -> Self {
        Self(u64::from(hash) << 32 | u64::from(server))
    }

    /// Where it is.
    pub(super) fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Index of the server that stands there.
    pub(super) fn server(self) -> usize {
        self.0 as u32 as usize
    }
}

/// The ring of these servers, each with its text and its weight, in nginx's order: points by hash, each hash once.
///
/// There is always a point, since nginx divides by their number: without servers it is that of an index one past the
/// last. None if there is no memory.
pub(super) fn ring<'a>(servers: impl Iterator<Item = (&'a [u8], u64)> + Clone) -> Option<Vec<Point>> {
    let points =
        |weight| usize::try_from(weight).ok().and_then(|weight: usize| weight.checked_mul(PER_WEIGHT));
    let mut count = 0_usize;
    for (_, weight) in servers.clone() {
        count = count.checked_add(points(weight)?)?;
    }
    let mut ring = Vec::new();
    ring.try_reserve_exact(count.max(1)).ok()?;
    let mut index = 0_u32;
    for (server, weight) in servers {
        let (host, port) = host_and_port(server);
        let base = crc32(crc32(crc32(u32::MAX, host), &[0]), port);
        let mut hash = 0_u32;
        for _ in 0..points(weight)? {
            hash = !crc32(base, &hash.to_le_bytes());
            ring.push(Point::new(hash, index));
        }
        index = index.checked_add(1)?;
    }
    if ring.is_empty() {
        ring.push(Point::new(0, index));
    }
    // nginx sorts by the hash alone, with the C library's `qsort`, which keeps the order of equals. They stand in the
    // order of their servers, so that this is the same.
    ring.sort_unstable();
    ring.dedup_by_key(|point| point.hash());
    Some(ring)
}

/// What nginx hashes of the text of a server: the path of a unix socket, or the host and the digits after its last
/// colon.
fn host_and_port(server: &[u8]) -> (&[u8], &[u8]) {
    if let Some((scheme, path)) = server.split_at_checked(5)
        && scheme.eq_ignore_ascii_case(b"unix:")
    {
        return (path, &[]);
    }
    let digits = server.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match server.split_at_checked(server.len().saturating_sub(digits)) {
        Some(([host @ .., b':'], port)) => (host, port),
        _ => (server, &[]),
    }
}

/// CRC-32, reflected, of each byte.
const TABLE: [u32; 256] = table();

/// Computes the table.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut rest: &mut [u32] = &mut table;
    let mut byte = 0_u32;
    while let [entry, after @ ..] = rest {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        *entry = crc;
        byte += 1;
        rest = after;
    }
    table
}

/// Goes on with a CRC-32, which begins with all ones and is inverted at its end. It is not nginx's own, whose functions
/// are inline and whose table is not where tests without nginx's objects run.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let entry = TABLE.get(usize::from(crc as u8 ^ byte));
        entry.copied().unwrap_or_default() ^ crc >> 8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring of these servers.
    fn ring_of(servers: &[(&str, u64)]) -> Vec<Point> {
        ring(servers.iter().map(|(text, weight)| (text.as_bytes(), *weight))).unwrap()
    }

    /// CRC-32 of a ring as text: a line for each point, of its hash in 8 hexadecimal digits and the text of its server.
    fn digest(ring: &[Point], servers: &[(&str, u64)]) -> u32 {
        !ring.iter().fold(u32::MAX, |crc, point| {
            crc32(crc, format!("{:08x} {}\n", point.hash(), servers[point.server()].0).as_bytes())
        })
    }

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(!crc32(u32::MAX, b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32(u32::MAX, b""), 0);
    }

    #[test]
    fn texts_of_servers_are_taken_apart_as_nginx_does() {
        let table = [
            ("127.0.0.1:8081", "127.0.0.1", "8081"),
            ("127.0.0.1", "127.0.0.1", ""),
            ("[::1]:80", "[::1]", "80"),
            ("[::1]", "[::1]", ""),
            ("unix:/tmp/a.sock", "/tmp/a.sock", ""),
            ("UNIX:/tmp/b:90", "/tmp/b:90", ""),
            ("unix:", "", ""),
            ("unix", "unix", ""),
            ("12345", "12345", ""),
            ("a:", "a", ""),
            (":80", "", "80"),
            ("a:b:80", "a:b", "80"),
            ("", "", ""),
        ];
        for (server, host, port) in table {
            assert_eq!(host_and_port(server.as_bytes()), (host.as_bytes(), port.as_bytes()), "{server}");
        }
    }

    /// Computed with zlib: each point's checksum takes in the one before.
    #[test]
    fn the_first_points_of_a_server_follow_from_each_other() {
        let table = [
            ("127.0.0.1:8081", [0x50aa_bcf7, 0xb8dc_900a, 0x2a33_55ce]),
            ("127.0.0.1", [0xc3b5_e186, 0x3878_7b01, 0xec49_4a32]),
            ("[::1]:80", [0x3d49_36c4, 0x9d53_6eea, 0xd9ea_90dc]),
            ("[::1]", [0xb368_a5ff, 0x4d92_3f1c, 0xcd8a_3ac0]),
            ("unix:/tmp/a.sock", [0xca7e_b1df, 0xbad8_f3e1, 0x716a_4f8e]),
            ("UNIX:/tmp/b:90", [0x9996_c508, 0x658e_bf30, 0x3f67_a496]),
            (":80", [0xd464_e238, 0xcbb2_8ed6, 0xe6b5_e5f5]),
        ];
        for (server, hashes) in table {
            let ring = ring_of(&[(server, 1)]);
            assert_eq!(ring.len(), PER_WEIGHT);
            for hash in hashes {
                assert!(ring.contains(&Point::new(hash, 0)), "{server}: {hash:#x}");
            }
        }
    }

    /// The digest is that of the points which nginx 1.24.0 made of these servers.
    #[test]
    fn the_ring_is_that_of_nginx() {
        let servers = [
            ("127.0.0.1:8081", 1),
            ("127.0.0.1:8082", 2),
            ("127.0.0.1", 1),
            ("[::1]:80", 1),
            ("[::1]", 1),
            ("unix:/tmp/a.sock", 1),
            ("UNIX:/tmp/b:90", 3),
            ("127.0.0.1:8081", 1),
            ("10.0.0.1:8080", 1),
        ];
        let ring = ring_of(&servers);
        assert_eq!((ring.len(), digest(&ring, &servers)), (1760, 0x3484_9cb2));
    }

    /// Likewise, with so many points that some servers share a hash: the first keeps it.
    #[test]
    fn a_hash_belongs_to_the_first_of_its_servers() {
        let servers = [("10.0.0.2:80", 700), ("10.0.0.1:80", 700)];
        let ring = ring_of(&servers);
        assert_eq!((ring.len(), digest(&ring, &servers)), (223_996, 0x7241_143b));
    }

    #[test]
    fn servers_of_one_text_stand_at_the_points_of_the_first() {
        let twice = ring_of(&[("a:1", 1), ("a:1", 2)]);
        let once = ring_of(&[("a:1", 2)]);
        assert!(twice.iter().map(|point| point.hash()).eq(once.iter().map(|point| point.hash())));
        assert_eq!(twice.iter().filter(|point| point.server() == 0).count(), PER_WEIGHT);
    }

    #[test]
    fn a_ring_is_never_empty() {
        assert_eq!(ring_of(&[]), [Point::new(0, 0)]);
        assert_eq!(ring_of(&[("a:1", 0), ("b:1", 0)]), [Point::new(0, 2)]);
        assert_eq!(ring_of(&[("a:1", 0), ("b:1", 1)])[0].server(), 1);
    }

    #[test]
    fn a_ring_that_fits_nowhere_is_none() {
        for weight in [u64::MAX, usize::MAX as u64 / PER_WEIGHT as u64] {
            let server: (&[u8], _) = (b"a:1", weight);
            assert_eq!(ring([server, server].into_iter()), None);
        }
    }
}
