//! Lists of servers as operators hand them over: what is in one, and what can be wrong with it.

pub mod text;

use std::fmt;

use super::address::{Address, AddressError};
use super::id::Group;
use super::params::{PARAMS, Param, ParamError, Params};
use super::query::quoted;
use super::server::{Server, Terms};
use super::state::Admin;

/// Most bytes of one word or value of a list: nginx's own bound on a parameter of its configuration.
pub const MAX_WORD: usize = 4_096;

/// Where something stands in a list. Both numbers begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPlace {
    /// The line.
    pub line: usize,
    /// The number of the server in its list, where several may stand in a line.
    pub item: Option<usize>,
}

/// A server of a list: with the defaults of the `server` directive where the list says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it stands.
    pub place: ListPlace,
    /// The server. A text that is no address can only mean servers that are there with this very text.
    pub server: Server<Result<Address, AddressError>>,
}

/// The servers that an upstream is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Where it begins.
    pub place: ListPlace,
    /// The upstream that it names; none if it is without a name.
    pub upstream: Option<String>,
    /// The servers.
    pub servers: Vec<Listed>,
}

/// Why a list was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    /// Where it was noticed.
    pub place: ListPlace,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong in a list; texts are stored as [`quoted`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text of a server is no address, and cannot become one.
    Address(AddressError),
    /// The value of a parameter; holds what was written.
    Param(String, ParamError),
    /// No parameter of a server, or none with a value.
    UnknownParameter(String),
    /// A parameter that nginx knows and the module cannot do.
    NotSupported(&'static str),
    /// A parameter is there twice.
    Twice(String),
    /// Two words that exclude each other.
    Both(&'static str, &'static str),
    /// A server without a text.
    NoServer,
    /// Nothing that may stand in a list of servers.
    UnknownDirective(String),
    /// This may not stand here.
    Unexpected(String),
    /// The list ends where this must follow: it was cut short.
    CutShort(&'static str),
    /// This is missing after a word.
    Missing(&'static str, String),
    /// A word or value is too long; holds its beginning.
    TooLong(String),
    /// A text is not UTF-8.
    NotUtf8(String),
    /// `upstream` without one name.
    NoName,
    /// The upstream has a list already, there.
    UpstreamTwice(String, ListPlace),
    /// What JSON's parser says, and the text.
    Json(String, String),
    /// There is no memory for more.
    NoMemory,
}

/// The words of a server that have no value, as they were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// `backup`.
    pub backup: bool,
    /// `down`.
    pub down: bool,
    /// `drain`.
    pub drain: bool,
}

impl ListPlace {
    /// A line.
    pub fn line(line: usize) -> Self {
        Self { line, item: None }
    }

    /// The lists have no memory to grow here.
    pub fn full(self) -> ListError {
        self.error(Fault::NoMemory)
    }

    /// What is wrong here.
    pub fn error(self, fault: Fault) -> ListError {
        ListError { place: self, fault }
    }
}

impl fmt::Display for ListPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        self.item.map_or(Ok(()), |item| write!(f, ", server {item}"))
    }
}

impl Listed {
    /// A server from what was read of it.
    ///
    /// # Errors
    ///
    /// If its text can mean no server, or its flags exclude each other.
    pub fn new(place: ListPlace, text: String, params: Params, flags: Flags) -> Result<Self, ListError> {
        let address = Address::parse(&text);
        match &address {
            // Some forms that nginx reads as addresses are no host names in a strict sense.
            Ok(_) | Err(AddressError::HostName(_) | AddressError::InvalidIp(_)) => {}
            Err(AddressError::Empty) => return Err(place.error(Fault::NoServer)),
            Err(error) => return Err(place.error(Fault::Address(error.clone()))),
        }
        if flags.down && flags.drain {
            return Err(place.error(Fault::Both("down", "drain")));
        }
        let group = if flags.backup { Group::Backup } else { Group::Primary };
        let admin = match flags {
            Flags { down: true, .. } => Admin::Down,
            Flags { drain: true, .. } => Admin::Drain,
            _ => Admin::Up,
        };
        Ok(Self { place, server: Server { text, address, group, terms: Terms { admin, params } } })
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl std::error::Error for ListError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::Param(text, error) => write!(f, "invalid parameter {text}: {error}"),
            Self::UnknownParameter(text) => write!(f, "unknown parameter {text}"),
            Self::NotSupported(name) => write!(f, "{name}: not yet supported"),
            Self::Twice(name) => write!(f, "duplicate parameter {name}"),
            Self::Both(one, other) => write!(f, "{one} and {other} at once are not allowed"),
            Self::NoServer => f.write_str("a server without an address"),
            Self::UnknownDirective(text) => {
                write!(f, "unknown directive {text}, only \"server\" and \"upstream\" are understood")
            }
            Self::Unexpected(text) => write!(f, "unexpected {text}"),
            Self::CutShort(wanted) => write!(f, "the list ends where {wanted} must follow"),
            Self::Missing(what, after) => write!(f, "{what} is missing after {after}"),
            Self::TooLong(text) => write!(f, "too long: {text}"),
            Self::NotUtf8(text) => write!(f, "invalid utf-8 in {text}"),
            Self::NoName => f.write_str("\"upstream\" needs one name"),
            Self::UpstreamTwice(name, place) => write!(f, "upstream {name} is also in {place}"),
            Self::NoMemory => f.write_str("no memory left"),
            Self::Json(error, text) => write!(f, "{error}, in {text}"),
        }
    }
}

/// Takes a parameter of a server that is written as `name=value`, or says what is wrong with it.
///
/// # Errors
///
/// If there is no such parameter, its value is wrong, or it is among `seen`.
fn take_param(word: &str, params: &mut Params, seen: &mut Vec<Param>) -> Result<(), Fault> {
    let shown = || quoted(word.as_bytes());
    let Some((name, value)) = word.split_once('=') else {
        return Err(match word {
            "resolve" => Fault::NotSupported("resolve"),
            _ => Fault::UnknownParameter(shown()),
        });
    };
    match (name, value) {
        // To say that there is no slow start is no wish.
        ("slow_start", "0" | "0s") => return Ok(()),
        ("slow_start", _) => return Err(Fault::NotSupported("slow_start")),
        ("service", _) => return Err(Fault::NotSupported("service")),
        ("route", _) => return Err(Fault::NotSupported("route")),
        _ => {}
    }
    let row = PARAMS.iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| Fault::UnknownParameter(shown()))?;
    if seen.contains(&row.param) {
        return Err(Fault::Twice(quoted(name.as_bytes())));
    }
    seen.push(row.param);
    params.set(row.param, row.param.parse(value).map_err(|error| Fault::Param(shown(), error))?);
    Ok(())
}
