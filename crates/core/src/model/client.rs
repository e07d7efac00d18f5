//! Who asks for a change.

/// Who asks for a change, for the log and the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address, as nginx logs it.
    pub address: String,
    /// Its user, if a password was checked.
    pub user: Option<String>,
}

impl From<&str> for Client {
    fn from(address: &str) -> Self {
        Self::from(address.to_owned())
    }
}

impl From<String> for Client {
    fn from(address: String) -> Self {
        Self { address, user: None }
    }
}
