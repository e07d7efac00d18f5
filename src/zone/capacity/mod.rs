//! `upstream_capacity`: how many slots the upstreams of a configuration get, zone by zone, where lists of peers cannot grow
//! at run time.

#[cfg(any(not(nginx_peer_refs), all(test, feature = "nginx-objs")))]
pub(super) mod blanks;
pub(super) mod room;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
#[cfg(any(not(nginx_peer_refs), all(test, feature = "nginx-objs")))]
pub(super) mod texts;

use std::ptr::NonNull;

use nginx_sys::{ngx_conf_t, ngx_pagesize};

use crate::model::log::plural;
use crate::nginx::conf;
use crate::nginx::log::Log;
use crate::nginx::upstream::Upstream;
use crate::zone::handle::Zone;
use crate::zone::nginx_peers::UpstreamConf;

use room::{Member, Remark, Slots, TooSmall, Wish};

/// Bytes of the unit in which sizes of zones are written.
const KILO: usize = 1024;

/// An upstream of the configuration, and what was found out about it.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// The upstream.
    pub upstream: Upstream,
    /// Whether one of nginx's own balancers set it up, so that its peers can be read.
    pub is_known: bool,
    /// Whether it can be changed.
    pub is_changeable: bool,
    /// What `upstream_capacity` says.
    pub capacity: Option<usize>,
}

/// How many slots the primaries and the backups of an upstream are to have, its configured servers among them.
pub type Planned = [usize; 2];

/// Plans the slots of each upstream that can be changed; the others have none. `all` are all upstreams of the
/// configuration, since zones may be shared with others. None if a zone is too small for what was asked for, which was
/// logged. Where lists of peers grow at run time there is nothing to plan.
///
/// # Safety
///
/// Called once in `postconfiguration`, and `all` says the truth.
pub unsafe fn plan(cf: NonNull<ngx_conf_t>, all: &[Candidate]) -> Option<Vec<Planned>> {
    let mut planned = vec![Planned::default(); all.len()];
    if cfg!(nginx_peer_refs) {
        return Some(planned);
    }
    let mut done: Vec<*const _> = Vec::new();
    for candidate in all.iter().filter(|candidate| candidate.is_changeable) {
        let zone = candidate.upstream.shm_zone();
        if !zone.is_null() && !done.contains(&zone) {
            done.push(zone);
            let sharing = all.iter().zip(&mut planned).filter(|(other, _)| other.upstream.shm_zone() == zone);
            let (sharing, planned): (Vec<_>, Vec<_>) = sharing.unzip();
            // SAFETY: see above.
            unsafe { plan_zone(cf, &sharing, planned)? };
        }
    }
    Some(planned)
}

/// The same for the upstreams of one zone, of which there is at least one.
///
/// # Safety
///
/// See [`plan`].
unsafe fn plan_zone(
    cf: NonNull<ngx_conf_t>,
    sharing: &[&Candidate],
    planned: Vec<&mut Planned>,
) -> Option<()> {
    let first = sharing.first()?.upstream;
    // SAFETY: the zone of an upstream lives in the pool of the configuration.
    let (zone, size) = (first.zone()?, unsafe { first.shm_zone().as_ref() }?.shm.size);
    if size == 0 {
        // No directive says a size, and nginx is about to say that in its own words.
        return Some(());
    }
    // SAFETY: nginx sets the word once, before it reads a configuration.
    let page = unsafe { (&raw const ngx_pagesize).read() };
    // SAFETY: see above.
    let members: Vec<Member> = sharing.iter().map(|candidate| unsafe { member(candidate) }).collect();
    let slots = match room::share(zone.len(), size, page, &members) {
        Ok(slots) => slots,
        Err(TooSmall { member, needed }) => {
            let at = sharing.get(member)?;
            let message = format!(
                "\"upstream_capacity {}\" does not fit into zone \"{zone}\" of upstream \"{}\": {}k or more is needed",
                at.capacity.unwrap_or(0),
                at.upstream.name(),
                needed.div_ceil(KILO),
            );
            // SAFETY: the configuration is being read.
            unsafe { conf::emerg(cf, &message) };
            return None;
        }
    };
    // SAFETY: see above.
    let log = unsafe { Log::from_raw((*cf.as_ptr()).log) };
    for (((candidate, member), slots), planned) in sharing.iter().zip(&members).zip(slots).zip(planned) {
        if candidate.is_changeable {
            if let Some(log) = log {
                remark(log, candidate, &zone, member, &slots);
            }
            *planned = [slots.primaries, slots.backups];
        }
    }
    Some(())
}

/// Size of a zone with room for the servers that an upstream is configured with and as many more, in kilobytes: what
/// an operator is told who has no zone there.
pub fn advised_kilobytes(upstream: Upstream) -> usize {
    let (primaries, backups) = configured(upstream);
    let (name, has_backups) = (upstream.name().len(), upstream.has_backups());
    // SAFETY: nginx sets the word once, before it reads a configuration.
    let page = unsafe { (&raw const ngx_pagesize).read() };
    room::advised(page, &Member { name, primaries, backups, has_backups, wish: Wish::Default }) / KILO
}

/// What an upstream has, and what it is to get.
///
/// # Safety
///
/// See [`plan`].
unsafe fn member(candidate: &Candidate) -> Member {
    let upstream = candidate.upstream;
    let wish = match candidate.capacity {
        _ if !candidate.is_changeable => Wish::Static,
        Some(servers) => Wish::Servers(servers),
        None => Wish::Default,
    };
    // SAFETY: see above.
    let read = if candidate.is_known { unsafe { lengths(upstream.as_non_null()) } } else { None };
    // Lists of a balancer that nobody knows are not touched before nginx itself copies them.
    let (primaries, backups) = read.unwrap_or_else(|| configured(upstream));
    Member { name: upstream.name().len(), primaries, backups, has_backups: upstream.has_backups(), wish }
}

/// Lengths of the texts of the primaries and backups of an upstream.
///
/// # Safety
///
/// Called in `postconfiguration`; one of nginx's own balancers set the upstream up, so that `peer.data` is a list of
/// round robin peers.
unsafe fn lengths(us: NonNull<UpstreamConf>) -> Option<(Vec<usize>, Vec<usize>)> {
    // SAFETY: see above.
    let zone = unsafe { Zone::of(us) }?;
    let lists = zone.read()?;
    let lengths = |list| lists.peers(list).map(|peer| peer.server().len()).collect();
    Some((lengths(lists.primary()), lists.backup().map_or_else(Vec::new, lengths)))
}

/// Lengths of the texts of the primaries and backups that the `server` directives make.
fn configured(upstream: Upstream) -> (Vec<usize>, Vec<usize>) {
    let servers = upstream.configured();
    let texts = |backup| {
        let servers = servers.iter().filter(move |server| server.backup == backup);
        servers.flat_map(|server| server.names.iter().map(|_| server.server.len())).collect()
    };
    (texts(false), texts(true))
}

/// Tells the operator what is not as one would expect.
fn remark(log: Log<'_>, candidate: &Candidate, zone: &str, member: &Member, slots: &Slots) {
    let (name, configured) = (candidate.upstream.name(), member.primaries.len());
    match slots.remark {
        None => {}
        Some(Remark::Raised) => log.warn(format_args!(
            "\"upstream_capacity {}\" is less than the {} of upstream \"{name}\", which {} instead",
            candidate.capacity.unwrap_or(0),
            plural(configured, "server"),
            if configured == 1 { "counts" } else { "count" },
        )),
        Some(Remark::Small) => log.notice(format_args!(
            "zone \"{zone}\" has room for {} of upstream \"{name}\", which has {configured}: raise the size \
             of \"zone\" to add more",
            plural(slots.servers, "server"),
        )),
    }
}
