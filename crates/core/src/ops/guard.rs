//! How many usable servers a change must leave: `upstream_guard`.

/// The least number of usable servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// This many.
    Servers(usize),
    /// This share of all servers, in percent, rounded up.
    Percent(u8),
}

impl Guard {
    /// Reads `N` or `N%`: at least 1, at most 100 percent.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, percent) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: usize = number.parse().ok().filter(|number| *number > 0)?;
        if percent {
            u8::try_from(number).ok().filter(|number| *number <= 100).map(Self::Percent)
        } else {
            Some(Self::Servers(number))
        }
    }

    /// How many usable servers there must be among `all`.
    pub fn min(self, all: usize) -> usize {
        match self {
            Self::Servers(servers) => servers,
            Self::Percent(percent) => all.saturating_mul(usize::from(percent)).div_ceil(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_percentages_are_read() {
        let table = [
            ("1", Some(Guard::Servers(1))),
            ("12", Some(Guard::Servers(12))),
            ("50%", Some(Guard::Percent(50))),
            ("100%", Some(Guard::Percent(100))),
            ("0", None),
            ("0%", None),
            ("101%", None),
            ("", None),
            ("%", None),
            ("-1", None),
            ("1.5", None),
            ("+1", None),
            ("99999999999999999999", None),
        ];
        for (text, wanted) in table {
            assert_eq!(Guard::parse(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn percentages_are_rounded_up() {
        for (percent, all, wanted) in [(50, 4, 2), (50, 5, 3), (1, 1, 1), (100, 7, 7), (34, 3, 2), (50, 0, 0)]
        {
            assert_eq!(Guard::Percent(percent).min(all), wanted);
        }
        assert_eq!(Guard::Servers(2).min(1), 2);
    }
}
