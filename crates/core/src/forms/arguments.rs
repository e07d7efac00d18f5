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
            let hint = match name {
                "down" | "drain" => "use \"up=\"",
                "up" => "use \"down=\"",
                _ => "leave it out",
            };
            Err(Refusal::argument(format!("{}, {hint}", invalid(value, name).text)))
        }
        Some(_) => Ok(true),
    }
}

/// The refusal of a value where some words are allowed.
pub fn not_one_of(value: &str, name: &str, words: &[&str]) -> Refusal {
    let words: Vec<_> = words.iter().map(|word| quoted(word.as_bytes())).collect();
    Refusal::argument(format!("{}, it must be {}", invalid(value, name).text, words.join(" or ")))
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
            ("down=0", Err("invalid value \"0\" in \"down\", use \"up=\"")),
            ("down=False", Err("invalid value \"False\" in \"down\", use \"up=\"")),
            ("down=OFF", Err("invalid value \"OFF\" in \"down\", use \"up=\"")),
            ("down=no", Err("invalid value \"no\" in \"down\", use \"up=\"")),
        ];
        for (query, wanted) in table {
            let found = flag(&Query::parse(query.as_bytes()).unwrap(), "down");
            assert_eq!(found, wanted.map_err(Refusal::argument), "{query}");
        }
    }

    #[test]
    fn what_means_not_is_told_what_to_say() {
        for (query, name, hint) in [
            ("up=false", "up", "use \"down=\""),
            ("drain=0", "drain", "use \"up=\""),
            ("backup=no", "backup", "leave it out"),
        ] {
            let text = flag(&Query::parse(query.as_bytes()).unwrap(), name).unwrap_err().text;
            assert!(text.ends_with(&format!("in \"{name}\", {hint}")), "{text}");
        }
    }

    #[test]
    fn unknown_arguments_are_named() {
        let query = Query::parse(b"down=&dwon=&x=").unwrap();
        assert_eq!(only(&query, &["down"]).unwrap_err().text, "unknown argument \"dwon\"");
        assert_eq!(only(&query, &["down", "dwon", "x"]), Ok(()));
    }
}
