//! Points in time and lengths of time, as newtypes that know how they are written.
//!
//! Nothing here reads a clock: the time of a request is nginx's cached time and is handed in by the caller.

use std::fmt;

/// Seconds in a day; UTC as nginx and POSIX count it has no leap seconds.
const DAY: i64 = 86_400;

/// `0000-01-01T00:00:00Z` in seconds since the epoch: the first moment whose year fits into four digits (RFC 3339, 5.6).
const FIRST: i64 = -62_167_219_200;

/// `9999-12-31T23:59:59Z` in seconds since the epoch: the last moment whose year fits into four digits (RFC 3339, 5.6).
const LAST: i64 = 253_402_300_799;

/// A moment in whole seconds since 1970-01-01 UTC; negative before it.
///
/// Written as ISO-8601 in UTC, `2026-01-02T03:04:05Z`. Moments outside the years 0 to 9999 are written as the nearest
/// moment inside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

/// A length of time in whole seconds, written in nginx's time syntax, `10s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

/// A calendar date in the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    /// Year, 0..=9999 for the moments this file writes.
    year: i64,
    /// Month, 1..=12.
    month: i64,
    /// Day of the month, 1..=31.
    day: i64,
}

// === impl Date ===

impl Date {
    /// The date that is `days` days after 1970-01-01 (before it, if negative).
    ///
    /// This is Howard Hinnant's `civil_from_days`: years are counted from March, so that the leap day is the last day of
    /// its year, in eras of 400 years, which all have 146,097 days. The operations saturate; for the days between
    /// [`FIRST`] and [`LAST`] none of them comes near a limit.
    fn from_days(days: i64) -> Date {
        let since_march_0000 = days.saturating_add(719_468);
        let era = since_march_0000.div_euclid(146_097);
        let day_of_era = since_march_0000.rem_euclid(146_097);
        let year_of_era = day_of_era
            .saturating_sub(day_of_era / 1_460)
            .saturating_add(day_of_era / 36_524)
            .saturating_sub(day_of_era / 146_096)
            / 365;
        let days_before_year =
            year_of_era.saturating_mul(365).saturating_add(year_of_era / 4).saturating_sub(year_of_era / 100);
        let day_of_year = day_of_era.saturating_sub(days_before_year);
        let month_from_march = day_of_year.saturating_mul(5).saturating_add(2) / 153;
        let days_before_month = month_from_march.saturating_mul(153).saturating_add(2) / 5;
        let month = if month_from_march < 10 {
            month_from_march.saturating_add(3)
        } else {
            month_from_march.saturating_sub(9)
        };
        Date {
            year: era.saturating_mul(400).saturating_add(year_of_era).saturating_add(i64::from(month <= 2)),
            month,
            day: day_of_year.saturating_sub(days_before_month).saturating_add(1),
        }
    }
}

// === impl UnixTime ===

impl UnixTime {
    /// Writes date and time of day without the closing `Z`, so that decimals can follow.
    fn write_without_zone(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.clamp(FIRST, LAST);
        let Date { year, month, day } = Date::from_days(seconds.div_euclid(DAY));
        let second_of_day = seconds.rem_euclid(DAY);
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_without_zone(f)?;
        f.write_str("Z")
    }
}

// === impl Seconds ===

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (1_767_323_045, "2026-01-02T03:04:05Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (FIRST, "0000-01-01T00:00:00Z"),
            (FIRST - 1, "0000-01-01T00:00:00Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (LAST + 1, "9999-12-31T23:59:59Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(UnixTime(seconds).to_string(), expected);
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(Seconds(10).to_string(), "10s");
        assert_eq!(Seconds(0).to_string(), "0s");
        assert_eq!(Seconds(u64::MAX).to_string(), "18446744073709551615s");
    }

    /// Walks through every day of the years 0 to 9999 with a calendar that only counts.
    #[test]
    fn every_day_of_ten_thousand_years() {
        let mut days = FIRST / DAY;
        for year in 0..=9_999 {
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if is_leap { 29 } else { 28 };
            for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for day in 1..=length {
                    assert_eq!(Date::from_days(days), Date { year, month, day });
                    days += 1;
                }
            }
        }
        assert_eq!(days * DAY, LAST + 1);
    }
}
