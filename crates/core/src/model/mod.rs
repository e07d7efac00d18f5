//! The vocabulary of the module: addresses, parameters, ids, snapshots, time. No HTTP and no nginx.

pub mod address;
pub mod client;
pub mod departures;
pub mod hosts;
pub mod id;
pub mod list;
pub mod log;
pub mod params;
pub mod pools;
pub mod query;
pub mod server;
pub mod server_name;
pub mod snapshot;
pub mod state;
pub mod text;
pub mod time;
