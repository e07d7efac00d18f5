//! What all handlers ask of the arguments of a request.

use crate::model::query::{Query, quoted};

use super::error::Refusal;

/// Refuses arguments that the handler does not know: a misspelt one must not be taken for one that is not there.
///
/// # Errors
///
/// Names the first of them.
pub fn only(query: &Query, known: &[&str]) -> Result<(), Refusal> {
    match query.first_unknown(known) {
        Some(name) => Err(Refusal::argument(format!("unknown argument {}", quoted(name.as_bytes())))),
        None => Ok(()),
    }
}

/// Whether a flag is set. It is set by being there, even without a value; a value that means "not" is refused, because
/// it could be meant either way.
///
/// # Errors
///
/// If the value means "not".
pub fn flag(query: &Query, name: &str) -> Result<bool, Refusal> {
    match query.get(name) {
        None => Ok(false),
        Some(value) if ["0", "false", "off", "no"].iter().any(|word| value.eq_ignore_ascii_case(word)) => {
            Err(invalid(value, name))
        }
        Some(_) => Ok(true),
    }
}

/// The refusal of a value.
pub fn invalid(value: &str, name: &str) -> Refusal {
    Refusal::argument(format!("invalid value {} in \"{name}\"", quoted(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_set_by_being_there() {
        let table = [
            ("", Ok(false)),
            ("down", Ok(true)),
            ("down=", Ok(true)),
            ("down=1", Ok(true)),
            ("down=true", Ok(true)),
            ("down=0", Err("invalid value \"0\" in \"down\"")),
            ("down=False", Err("invalid value \"False\" in \"down\"")),
            ("down=OFF", Err("invalid value \"OFF\" in \"down\"")),
            ("down=no", Err("invalid value \"no\" in \"down\"")),
        ];
        for (query, wanted) in table {
            let found = flag(&Query::parse(query.as_bytes()).unwrap(), "down");
            assert_eq!(found, wanted.map_err(Refusal::argument), "{query}");
        }
    }

    #[test]
    fn unknown_arguments_are_named() {
        let query = Query::parse(b"down=&dwon=&x=").unwrap();
        assert_eq!(only(&query, &["down"]).unwrap_err().text, "unknown argument \"dwon\"");
        assert_eq!(only(&query, &["down", "dwon", "x"]), Ok(()));
    }
}
