//! nginx's live peers. `nginx_peers` alone says which of nginx's structures they are.
//!
//! A [`Zone`] reads the peers of one upstream into rows and changes their parameters. What differs between nginx
//! versions is behind [`backend::Backend`].

mod apply;
pub mod backend;
pub mod capacity;
mod census;
mod chosen;
mod copy;
mod current;
mod edits;
pub mod extra;
mod handle;
pub mod layout;
mod lock;
#[cfg(nginx_peer_refs)]
mod native;
mod nginx_peers;
mod peers;
pub mod place;
pub mod prepared;
mod read;
pub mod setting;
#[cfg(not(nginx_peer_refs))]
mod slots;
pub mod sums;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
pub(crate) mod tests;

pub use backend::NoSeat;
pub use census::Census;
pub use chosen::Chosen;
pub use copy::{Copy, Row};
pub use current::{Current, Edits, Fate, Prepared, Tables};
pub use extra::Extra;
pub use handle::Zone;
pub use lock::{Lists, Writing};
pub use place::{Place, Spot};
pub use setting::Setting;
