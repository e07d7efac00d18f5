//! Where a server block can be reached.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::{self, NonNull};

use nginx_sys::{
    AF_INET, AF_INET6, AF_UNIX, ngx_conf_t, ngx_http_conf_addr_t, ngx_http_conf_port_t,
    ngx_http_core_main_conf_t, ngx_http_core_module, ngx_http_core_srv_conf_t, sockaddr, sockaddr_in,
    sockaddr_in6,
};

use super::conf::context;

/// Whether other machines may reach a server block: it listens on an address that is neither of the loopback interface nor
/// a socket of the file system.
///
/// # Safety
///
/// Called in `postconfiguration`; the server is one of the configuration.
pub unsafe fn is_public(cf: NonNull<ngx_conf_t>, server: NonNull<ngx_http_core_srv_conf_t>) -> bool {
    // SAFETY: in `postconfiguration` the core's settings have the ports, their addresses and the servers of these, before
    // nginx makes its sockets of them.
    unsafe {
        let Some(context) = context(cf) else { return true };
        let index = (&raw const ngx_http_core_module.ctx_index).read();
        let main: *const ngx_http_core_main_conf_t = (*(*context.as_ptr()).main_conf.add(index)).cast();
        let Some(ports) = main.as_ref().and_then(|main| main.ports.as_ref()) else { return false };
        let mut addresses = ports
            .as_slice::<ngx_http_conf_port_t>()
            .iter()
            .flat_map(|port| port.addrs.as_slice::<ngx_http_conf_addr_t>());
        addresses.any(|address| {
            let servers = address.servers.as_slice::<*mut ngx_http_core_srv_conf_t>();
            servers.iter().any(|other| ptr::eq(*other, server.as_ptr())) && !is_local(address.opt.sockaddr)
        })
    }
}

/// Whether only this machine can send to an address.
///
/// # Safety
///
/// The address is one that nginx made, of the length of its family.
unsafe fn is_local(address: *const sockaddr) -> bool {
    // SAFETY: see above.
    unsafe {
        match u32::from((*address).sa_family) {
            AF_UNIX => true,
            AF_INET => {
                let address = (*address.cast::<sockaddr_in>()).sin_addr.s_addr;
                Ipv4Addr::from(u32::from_be(address)).is_loopback()
            }
            AF_INET6 => {
                let bytes =
                    (&raw const (*address.cast::<sockaddr_in6>()).sin6_addr).cast::<[u8; 16]>().read();
                Ipv6Addr::from(bytes).is_loopback()
            }
            _ => false,
        }
    }
}
