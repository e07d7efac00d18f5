//! nginx's own balancers over lists that change under their requests: each is set up, copied into a zone and asked as
//! nginx does it.
//!
//! They need the objects of an nginx before 1.27.3: `make unit-with`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_BUSY, NGX_OK, NGX_PEER_FAILED, ngx_addr_t, ngx_array_create, ngx_array_push, ngx_conf_t,
    ngx_connection_t, ngx_create_pool, ngx_cycle, ngx_cycle_t, ngx_destroy_pool, ngx_http_conf_ctx_t,
    ngx_http_module_t, ngx_http_upstream_main_conf_t, ngx_http_upstream_module,
    ngx_http_upstream_rr_peer_data_t, ngx_http_upstream_server_t, ngx_int_t, ngx_list_init, ngx_log_t,
    ngx_module_t, ngx_pool_t, ngx_shm_zone_t, ngx_str_t, ngx_time_init, sockaddr_in,
};

use crate::model::id::Group;
use crate::model::snapshot::{Faults, Method};
use crate::nginx::fixture;
use crate::nginx::shm::Word;

use super::super::backend::Backend;
use super::super::nginx_peers::{RawRequest, RequestUpstream, UpstreamConf};
use super::super::place::Spot;
use super::super::tests::exact;
use super::super::{Edits, Extra, Fate, Zone};
use super::Slots;
use super::blanks::Own;
use super::tables::Tables;
use super::tests::{Dice, MANY, ROUND_ROBIN, check_walks, places, prepare, slots};

unsafe extern "C" {
    /// `hash`.
    static mut ngx_http_upstream_hash_module: ngx_module_t;
    /// `ip_hash`.
    static mut ngx_http_upstream_ip_hash_module: ngx_module_t;
    /// `least_conn`.
    static mut ngx_http_upstream_least_conn_module: ngx_module_t;
    /// `random`.
    static mut ngx_http_upstream_random_module: ngx_module_t;
    /// `zone`.
    static mut ngx_http_upstream_zone_module: ngx_module_t;
    /// Sets round robin up.
    fn ngx_http_upstream_init_round_robin(cf: *mut ngx_conf_t, us: *mut UpstreamConf) -> ngx_int_t;
}

/// Memory that a test never gives back: plain words of nginx's, all zeroes.
fn zeroed<T>() -> &'static mut T {
    // SAFETY: nginx's structures are plain words, for which zeroes are a start.
    Box::leak(Box::new(unsafe { std::mem::zeroed() }))
}

/// A string that lives as long as the test.
fn string(text: &str) -> ngx_str_t {
    let text = Box::leak(text.to_owned().into_boxed_str());
    ngx_str_t { len: text.len(), data: text.as_mut_ptr() }
}

/// A configuration with one upstream.
struct Conf {
    /// What directives are given.
    cf: &'static mut ngx_conf_t,
    /// The upstream.
    us: &'static mut UpstreamConf,
    /// Settings of each module, by its index.
    settings: &'static mut [*mut c_void; 8],
}

impl Conf {
    /// One that is being read.
    fn new() -> Self {
        fixture::start();
        let (cf, us) = (zeroed::<ngx_conf_t>(), zeroed::<UpstreamConf>());
        let (main, settings) = (zeroed::<[*mut c_void; 8]>(), zeroed::<[*mut c_void; 8]>());
        let (context, upstreams) =
            (zeroed::<ngx_http_conf_ctx_t>(), zeroed::<ngx_http_upstream_main_conf_t>());
        // SAFETY: nothing else runs nginx's code; the structures are set up as nginx sets them up.
        unsafe {
            ngx_time_init();
            let cycle = zeroed::<ngx_cycle_t>();
            cycle.log = (*ngx_cycle).log;
            cf.pool = ngx_create_pool(4096, cycle.log);
            cf.log = cycle.log;
            assert_eq!(
                ngx_list_init(&raw mut cycle.shared_memory, cf.pool, 4, size_of::<ngx_shm_zone_t>()),
                0
            );
            cf.cycle = cycle;
            upstreams.upstreams = *ngx_array_create(cf.pool, 4, size_of::<*mut c_void>());
            *ngx_array_push(&raw mut upstreams.upstreams).cast() = ptr::from_mut(us);
            main[0] = ptr::from_mut(upstreams).cast();
            settings[0] = ptr::from_mut(us).cast();
            context.main_conf = main.as_mut_ptr();
            context.srv_conf = settings.as_mut_ptr();
            cf.ctx = ptr::from_mut(context).cast();
            us.srv_conf = settings.as_mut_ptr();
            us.host = string("u");
            us.servers = ngx_array_create(cf.pool, 4, size_of::<ngx_http_upstream_server_t>());
        }
        Self { cf, us, settings }
    }

    /// `server 127.0.0.1:PORT;`, of the primaries or of the backups.
    fn server(&mut self, port: u16, is_backup: bool) {
        let address = zeroed::<sockaddr_in>();
        address.sin_family = libc::AF_INET as _;
        address.sin_port = port.to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let addrs = zeroed::<ngx_addr_t>();
        addrs.sockaddr = ptr::from_mut(address).cast();
        addrs.socklen = size_of::<sockaddr_in>() as _;
        addrs.name = string(&format!("127.0.0.1:{port}"));
        // SAFETY: the array has such servers.
        unsafe {
            let server: *mut ngx_http_upstream_server_t = ngx_array_push(self.us.servers).cast();
            server.write_bytes(0, 1);
            (*server).name = addrs.name;
            (*server).addrs = addrs;
            (*server).naddrs = 1;
            (*server).weight = 1;
            (*server).max_fails = 1;
            (*server).fail_timeout = 1;
            (*server).set_backup(is_backup.into());
        }
    }

    /// A directive of a module.
    fn directive(&mut self, module: *mut ngx_module_t, index: usize, words: &[&str]) {
        // SAFETY: the module is nginx's; its directive has the name that it is looked for by.
        unsafe {
            (*module).ctx_index = index;
            let args = ngx_array_create(self.cf.pool, 4, size_of::<ngx_str_t>());
            for word in words {
                *ngx_array_push(args).cast() = string(&format!("{word}\0")[..]);
                let last = (*args).elts.cast::<ngx_str_t>().add((*args).nelts - 1);
                (*last).len -= 1;
            }
            self.cf.args = args;
            let hooks: *const ngx_http_module_t = (*module).ctx.cast();
            if let Some(create) = (*hooks).create_srv_conf
                && index > 0
            {
                self.settings[index] = create(self.cf);
            }
            let command = (*module).commands;
            let answer: *mut c_char = (*command).set.unwrap()(self.cf, command, self.settings[index]);
            assert!(answer.is_null(), "{:?}", (!answer.is_null()).then(|| CStr::from_ptr(answer)));
        }
    }
}

/// An upstream that runs, with requests.
struct Running {
    /// What nginx knows of it.
    us: *mut UpstreamConf,
    /// Its peers.
    zone: Zone,
    /// What its balancer computed.
    tables: Option<Tables>,
    /// The count of changes that this shows.
    shown: Cell<Option<u64>>,
    /// Where `hash` has its key.
    key: Option<NonNull<ngx_str_t>>,
}

impl Running {
    /// One with so many servers, and room for so many.
    fn new(method: Method, is_two: bool, servers: [u16; 2], planned: [usize; 2]) -> Self {
        let mut conf = Conf::new();
        let (mut key, mut settings) = (None, ptr::null_mut());
        // SAFETY: nothing else runs nginx's code, which is called in the order in which nginx calls it.
        unsafe {
            ngx_http_upstream_module.ctx_index = 0;
            match method {
                Method::LeastConn => {
                    conf.directive(&raw mut ngx_http_upstream_least_conn_module, 3, &["least_conn"]);
                }
                Method::IpHash => conf.directive(&raw mut ngx_http_upstream_ip_hash_module, 4, &["ip_hash"]),
                Method::Hash | Method::HashConsistent => {
                    let words: &[_] =
                        if method == Method::Hash { &["hash", "k"] } else { &["hash", "k", "consistent"] };
                    conf.directive(&raw mut ngx_http_upstream_hash_module, 1, words);
                    settings = conf.settings[1];
                    // The settings begin with the key, which begins with its text.
                    key = NonNull::new(settings.cast());
                }
                Method::Random => {
                    let words: &[_] = if is_two { &["random", "two"] } else { &["random"] };
                    conf.directive(&raw mut ngx_http_upstream_random_module, 2, words);
                    settings = conf.settings[2];
                }
                _ => conf.us.peer.init_upstream = Some(ngx_http_upstream_init_round_robin),
            }
            conf.directive(&raw mut ngx_http_upstream_zone_module, 0, &["zone", "u", "1m"]);
            for (group, count) in servers.into_iter().enumerate() {
                (1..=count).for_each(|at| conf.server(group as u16 * 1000 + at, group == 1));
            }
            let us = ptr::from_mut(conf.us);
            assert_eq!((*us).peer.init_upstream.unwrap()(conf.cf, us), NGX_OK as ngx_int_t);
            let tables = NonNull::new(settings)
                .and_then(|settings| Tables::of(NonNull::new(us).unwrap(), method, settings).unwrap());

            let shm = fixture::shm_zone(256);
            (*(*us).shm_zone).shm.addr = (*shm.as_ptr()).shm.addr;
            assert_eq!((*(*us).shm_zone).init.unwrap()((*us).shm_zone, ptr::null_mut()), NGX_OK as ngx_int_t);
            let zone = Zone::of(NonNull::new(us).unwrap()).unwrap();
            let extra = Word::<Extra>::alloc(zone.pool().unwrap()).unwrap();
            let zone = zone.with_extra(extra);
            assert!(Slots::begin(&zone, planned));
            let shown = Cell::new(tables.as_ref().and_then(Tables::shown));
            Self { us, zone, tables, shown, key }
        }
    }

    /// The number of peers that are linked in each list.
    fn lengths(&self) -> Vec<usize> {
        let lists = self.zone.read().unwrap();
        lists.iter().map(|(_, list)| lists.peers(list).take(MANY).count()).collect()
    }
}

/// A request.
struct Request {
    /// nginx's structure.
    r: &'static mut RawRequest,
    /// How many peers it has room to note.
    noted: usize,
    /// Whether it holds a peer.
    holds: bool,
    /// Whether it got none.
    is_over: bool,
}

impl Request {
    /// One whose balancer has prepared.
    fn new(running: &Running, dice: &mut Dice) -> Self {
        let (r, upstream) = (zeroed::<RawRequest>(), zeroed::<RequestUpstream>());
        let (connection, address) = (zeroed::<ngx_connection_t>(), zeroed::<sockaddr_in>());
        // SAFETY: the request has what balancers look at, and one thread runs these tests.
        unsafe {
            let log: *mut ngx_log_t = (*ngx_cycle).log;
            let pool: *mut ngx_pool_t = ngx_create_pool(1024, log);
            address.sin_family = libc::AF_INET as _;
            address.sin_addr.s_addr = dice.roll(1 << 30) as u32;
            connection.log = log;
            connection.sockaddr = ptr::from_mut(address).cast();
            (r.pool, r.connection, r.upstream) = (pool, connection, upstream);
            (*r.upstream).peer.log = log;
            if let Some(key) = running.key {
                *key.as_ptr() = string(&dice.roll(1 << 30).to_string());
            }
            if let Some(tables) = &running.tables {
                running.refresh(tables);
            }
            assert_eq!((*running.us).peer.init.unwrap()(r, running.us), NGX_OK as ngx_int_t);
            let rrp: *mut ngx_http_upstream_rr_peer_data_t = (*r.upstream).peer.data.cast();
            let list = running.zone.primary().raw().as_ptr();
            let backups = (*list).next.as_ref().map_or(0, |backups| backups.number);
            let is_own = ptr::eq((*rrp).tried, &raw const (*rrp).data);
            let noted = (*list).number.max(backups);
            assert_eq!(is_own, noted <= 64);
            Self { r, noted: noted.next_multiple_of(64).max(64), holds: false, is_over: false }
        }
    }

    /// Goes on: gets a peer, or gives the one back that it has.
    fn go_on(&mut self, dice: &mut Dice, servers: &BTreeSet<usize>, all: &BTreeSet<usize>, at: &str) {
        // SAFETY: the request lives, and its functions are called as nginx calls them.
        unsafe {
            let pc = &raw mut (*self.r.upstream).peer;
            let rrp: *mut ngx_http_upstream_rr_peer_data_t = (*pc).data.cast();
            if self.holds {
                let state = if dice.roll(3) == 0 { NGX_PEER_FAILED as usize } else { 0 };
                (*pc).free.unwrap()(pc, (*pc).data, state);
                self.holds = false;
                return;
            }
            let rc = (*pc).get.unwrap()(pc, (*pc).data);
            if rc == NGX_BUSY as ngx_int_t {
                // nginx asks no more.
                self.is_over = true;
                return;
            }
            assert_eq!(rc, NGX_OK as ngx_int_t, "{at}");
            self.holds = true;
            let current = (*rrp).current;
            assert!(servers.contains(&(current as usize)), "{at}: a slot that no server has");
            assert!(all.contains(&(current as usize)) && ptr::eq((*pc).name, &raw const (*current).name));
        }
    }

    /// Ends.
    fn end(mut self, dice: &mut Dice, none: &BTreeSet<usize>) {
        if self.holds {
            self.go_on(dice, none, none, "");
        }
        // SAFETY: nothing uses the request any more.
        unsafe { ngx_destroy_pool(self.r.pool) };
    }
}

impl Running {
    /// Lets the tables follow, as the hook does before each request.
    fn refresh(&self, tables: &Tables) {
        if self.shown.get() != Some(self.zone.membership()) {
            // SAFETY: the zone is that of the tables; no balancer is at work.
            self.shown.set(unsafe { tables.refresh(&self.zone) });
        }
        assert!(self.shown.get().is_some() && tables.is_usable());
    }

    /// Adds and removes servers, few or many.
    fn change(&self, dice: &mut Dice, ports: &mut usize) {
        let (mut edits, has_backups) = (Edits::default(), self.has_backups());
        let share = [0, 1, 3, 4][dice.roll(4)];
        for group in [Group::Primary, Group::Backup].into_iter().take(if has_backups { 2 } else { 1 }) {
            for place in places(&self.zone, group) {
                if dice.roll(4) < share {
                    edits.at.push((Spot { peer: Some(place), ..Spot::unknown(group) }, Fate::Leave));
                }
            }
            for _ in 0..[0, 1, 3, 70][dice.roll(4)] {
                *ports = *ports % 60_000 + 1;
                edits.append.push((group, prepare(&self.zone, *ports)));
            }
        }
        edits.make_room();
        let mut lists = self.zone.write().unwrap();
        // What finds no slot stays out.
        let membership = self.zone.membership();
        // SAFETY: the places are those of now.
        let _ = unsafe { lists.seat(membership, &mut edits) };
        // SAFETY: the write locks are held, and the edits were seated under them.
        unsafe {
            if Slots::edit(&mut lists, ROUND_ROBIN, &mut edits).members {
                Slots::settle(&lists);
                Slots::moved(&lists);
            }
        }
        drop(lists);
    }

    /// Whether backups can come.
    fn has_backups(&self) -> bool {
        Own::of(&self.zone).unwrap().slots(Group::Backup) > 0
    }

    /// The slots that servers have.
    fn servers(&self) -> BTreeSet<usize> {
        let groups = [Group::Primary, Group::Backup].into_iter();
        groups.flat_map(|group| places(&self.zone, group)).map(|place| place.as_ptr() as usize).collect()
    }
}

/// Runs requests while servers come and go.
fn run(method: Method, is_two: bool, servers: [u16; 2], planned: [usize; 2]) {
    let running = Running::new(method, is_two, servers, planned);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut requests, mut ports) = (Vec::new(), 2000);
    let all: BTreeSet<usize> = slots(&running.zone).into_iter().flatten().collect();
    let is_wide = planned.into_iter().max() > Some(64);
    let mut chosen = 0;
    for step in 0..1500 {
        let at = format!("{method:?} {is_two} {planned:?}, step {step}");
        match dice.roll(8) {
            0 => {
                running.change(&mut dice, &mut ports);
                assert_eq!(slots(&running.zone).into_iter().flatten().collect::<BTreeSet<_>>(), all, "{at}");
                let copy = running.zone.copy().unwrap();
                assert_eq!(copy.faults, Faults::default(), "{at}");
                assert!(exact(&copy.primary) && copy.backup.as_ref().is_none_or(exact), "{at}");
                check_walks(&running.zone, &at, is_wide);
            }
            1 | 2 if requests.len() < 30 => requests.push(Request::new(&running, &mut dice)),
            3 if !requests.is_empty() => {
                let request: Request = requests.swap_remove(dice.roll(requests.len()));
                request.end(&mut dice, &BTreeSet::new());
            }
            _ if !requests.is_empty() => {
                let (place, servers) = (dice.roll(requests.len()), running.servers());
                let request: &mut Request = &mut requests[place];
                if !request.is_over {
                    request.go_on(&mut dice, &servers, &all, &at);
                    chosen += usize::from(request.holds);
                }
            }
            _ => {}
        }
        let longest = running.lengths().into_iter().max().unwrap();
        let noted = requests.iter().map(|request| request.noted).min();
        assert!(noted.is_none_or(|noted| longest <= noted), "{at}: {longest} peers, {noted:?} noted");
    }
    assert!(chosen > 100, "{method:?}: {chosen}");
    requests.into_iter().for_each(|request| request.end(&mut dice, &BTreeSet::new()));
    assert_eq!(running.zone.copy().unwrap().zombies.conns, 0);
}

#[test]
fn balancers_with_backups_meet_no_blank_slot() {
    for method in [Method::RoundRobin, Method::LeastConn] {
        for (servers, planned) in
            [([1, 0], [8, 3]), ([2, 1], [64, 17]), ([3, 2], [300, 90]), ([60, 1], [65, 200])]
        {
            run(method, false, servers, planned);
        }
    }
}

#[test]
fn balancers_without_backups_meet_no_blank_slot() {
    let methods = [Method::IpHash, Method::Hash, Method::HashConsistent, Method::Random];
    for method in methods {
        for (servers, planned) in [([1, 0], [8, 0]), ([2, 0], [64, 0]), ([3, 0], [300, 0])] {
            run(method, false, servers, planned);
            if method == Method::Random {
                run(method, true, servers, planned);
            }
        }
    }
}
