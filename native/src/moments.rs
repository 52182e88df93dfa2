//! ISO-8601 text to what Avro stores for dates and times: the common forms, the others are declined.

use std::io::Write as _;

/// How a cell is read as the time of a record: `cdc/replication/moments.py` names and reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTime {
    /// A binary timestamp: microseconds since 2000.
    Microseconds,
    /// A binary bigint: milliseconds since 1970.
    Integer,
    /// `2026-01-31 08:00:00.5`, in UTC.
    Timestamp,
    /// `2026-01-31 08:00:00.5+00`; also with `Z` or `+01:00`.
    TimestampTz,
    /// A bigint in text.
    Digits,
}

const YEAR_2000: i64 = 946_684_800_000;
const LAST_RECORD: i64 = 253_402_300_799_999;

impl RecordTime {
    /// By its name in a layout.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "microseconds" => Some(Self::Microseconds),
            "integer" => Some(Self::Integer),
            "timestamp" => Some(Self::Timestamp),
            "timestamptz" => Some(Self::TimestampTz),
            "digits" => Some(Self::Digits),
            _ => None,
        }
    }

    /// Milliseconds since 1970. `None`: declined, as what is no time of a record, or in another form.
    #[must_use]
    pub fn milliseconds(self, cell: &[u8]) -> Option<i64> {
        let milliseconds = match self {
            Self::Microseconds => i64::from_be_bytes(cell.try_into().ok()?).div_euclid(1000) + YEAR_2000,
            Self::Integer => i64::from_be_bytes(cell.try_into().ok()?),
            Self::Timestamp => timestamp(cell, 3, true, true)?,
            Self::TimestampTz => match cell.strip_suffix(b"+00") {
                Some(utc) => timestamp(utc, 3, true, true)?,
                None => timestamp(cell, 3, false, true)?,
            },
            Self::Digits if cell.first() == Some(&b'+') => return None,
            Self::Digits => std::str::from_utf8(cell).ok()?.parse().ok()?,
        };
        (1..=LAST_RECORD).contains(&milliseconds).then_some(milliseconds)
    }
}

const DAY_SECONDS: i64 = 86_400;
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

/// Days since 1970 of `2026-01-31`.
#[must_use]
pub fn date(text: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *text else {
        return None;
    };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    days(year, pair(m0, m1)?, pair(d0, d1)?)
}

/// Units of `10^-digits` seconds since midnight of `17:45:00` or `17:45:00.123`.
#[must_use]
pub fn time(text: &[u8], digits: u32, truncate: bool) -> Option<i64> {
    let (seconds, fraction) = clock(text)?;
    Some(seconds * 10_i64.checked_pow(digits)? + ticks(fraction, digits, truncate)?)
}

/// Units of `10^-digits` seconds since 1970 of `2026-01-31T17:45:00.123Z`, or without `Z` when it is `local`.
#[must_use]
pub fn timestamp(text: &[u8], digits: u32, local: bool, truncate: bool) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let (b'T' | b' ', rest) = rest.split_first()? else {
        return None;
    };
    let (rest, offset) = if local { (rest, 0) } else { offset(rest)? };
    let (seconds, fraction) = clock(rest)?;
    let seconds = date(day)? * DAY_SECONDS + seconds - offset;
    seconds.checked_mul(10_i64.checked_pow(digits)?)?.checked_add(ticks(fraction, digits, truncate)?)
}

/// The text before `Z` or `+01:00`, and the offset in seconds.
fn offset(text: &[u8]) -> Option<(&[u8], i64)> {
    if let Some((b'Z', before)) = text.split_last() {
        return Some((before, 0));
    }
    let (before, [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1]) = text.split_last_chunk()? else {
        return None;
    };
    let (hours, minutes) = (pair(*h0, *h1)?, pair(*m0, *m1)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some((before, if *sign == b'-' { -seconds } else { seconds }))
}

/// Seconds since midnight, and the digits after the point.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let ([h0, h1, b':', m0, m1, b':', s0, s1], rest) = text.split_first_chunk()? else {
        return None;
    };
    let (hour, minute, second) = (pair(*h0, *h1)?, pair(*m0, *m1)?, pair(*s0, *s1)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match rest.split_first() {
        None => rest,
        Some((b'.', digits)) if !digits.is_empty() => digits,
        _ => return None,
    };
    Some((hour * 3600 + minute * 60 + second, fraction))
}

/// The fraction in units of `10^-digits` seconds; a finer one is declined, or cut with `truncate`.
fn ticks(fraction: &[u8], digits: u32, truncate: bool) -> Option<i64> {
    let (fraction, excess) = fraction.split_at_checked(digits as usize).unwrap_or((fraction, &[]));
    let fits = excess.is_empty() || (truncate && excess.iter().all(u8::is_ascii_digit));
    if !fits {
        return None;
    }
    let mut number = 0;
    for byte in fraction {
        number = number * 10 + digit(*byte)?;
    }
    let missing = digits - u32::try_from(fraction.len()).ok()?;
    Some(number * 10_i64.checked_pow(missing)?)
}

/// Units of `10^-digits` seconds in a day.
#[must_use]
pub fn day_ticks(digits: u32) -> i64 {
    DAY_SECONDS * 10_i64.pow(digits.min(9))
}

/// Appends `2026-01-31` for days since 1970; `None` outside the years 1 to 9999.
pub fn write_date(out: &mut Vec<u8>, days: i64) -> Option<()> {
    if !(FIRST_DAY..=LAST_DAY).contains(&days) {
        return None;
    }
    // Days since the first of March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    let year = if month < 3 { year + 1 } else { year };
    write!(out, "{year:04}-{month:02}-{day:02}").ok()
}

/// Appends `17:45:00.500` for units of `10^-digits` seconds since midnight, with all digits.
pub fn write_clock(out: &mut Vec<u8>, ticks: i64, digits: u32) -> Option<()> {
    let unit = 10_i64.checked_pow(digits)?;
    let (seconds, fraction, width) = (ticks / unit, ticks % unit, digits as usize);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(out, "{hours:02}:{minutes:02}:{seconds:02}.{fraction:0width$}").ok()
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte & 15))
}

fn pair(tens: u8, ones: u8) -> Option<i64> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// Days since 1970 in the Gregorian calendar, for years from 1 to 9999.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if year < 1 || day < 1 || day > month_days(year, month)? {
        return None;
    }
    // Years that begin in March, so that a leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = 365 * year + year / 4 - year / 100 + year / 400;
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn month_days(year: i64, month: i64) -> Option<i64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => Some(29),
        2 => Some(28),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        assert_eq!(date(b"1970-01-01"), Some(0));
        assert_eq!(date(b"2000-02-29"), Some(11_016));
        assert_eq!(date(b"0001-01-01"), Some(-719_162));
        assert_eq!(date(b"9999-12-31"), Some(2_932_896));
        for wrong in ["1900-02-29", "0000-01-01", "2026-13-01", "2026-00-01", "2026-01-00", "2026-04-31", "2026-1-01"] {
            assert_eq!(date(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn dates_are_written_as_they_are_read() {
        for days in (FIRST_DAY..=LAST_DAY).step_by(97).chain([FIRST_DAY, -1, 0, 11_016, 11_017, LAST_DAY]) {
            let mut out = Vec::new();
            assert!(write_date(&mut out, days).is_some());
            assert_eq!(date(&out), Some(days));
        }
        assert_eq!(write_date(&mut Vec::new(), FIRST_DAY - 1), None);
        assert_eq!(write_date(&mut Vec::new(), LAST_DAY + 1), None);
    }

    #[test]
    fn times_count_from_midnight_and_are_never_rounded() {
        assert_eq!(time(b"17:45:00.5", 3, false), Some(63_900_500));
        assert_eq!(time(b"00:00:00", 6, false), Some(0));
        for wrong in ["24:00:00", "23:60:00", "23:59:60", "17:45:00.1234", "17:45:00.", "17:45:0x"] {
            assert_eq!(time(wrong.as_bytes(), 3, false), None, "{wrong}");
        }
    }

    #[test]
    fn timestamps_need_their_offset_unless_they_are_local() {
        assert_eq!(timestamp(b"1970-01-01T00:00:01Z", 3, false, false), Some(1000));
        assert_eq!(timestamp(b"1970-01-01 01:00:00.25+01:00", 6, false, false), Some(250_000));
        assert_eq!(timestamp(b"1969-12-31T23:59:59.9", 3, true, false), Some(-100));
        assert_eq!(timestamp(b"1970-01-01T00:00:00", 3, false, false), None);
        assert_eq!(timestamp(b"1970-01-01T00:00:00Z", 3, true, false), None);
        assert_eq!(timestamp(b"9999-12-31T23:59:59Z", 9, false, false), None, "beyond 64 bits");
    }

    #[test]
    fn record_times_are_milliseconds_of_the_years_1970_to_9999() {
        let microseconds: i64 = 823_161_600_123_999;
        for (name, cell, expected) in [
            ("timestamptz", "2026-01-31 08:00:00.123999+00", Some(1_769_846_400_123)),
            ("timestamp", "2026-01-31 08:00:00.123999", Some(1_769_846_400_123)),
            ("digits", "1769846400123", Some(1_769_846_400_123)),
            ("timestamptz", "9999-12-31 23:59:59.999999+00", Some(LAST_RECORD)),
            ("timestamptz", "1970-01-01 00:00:00+00", None),
            ("timestamptz", "2026-01-31 08:00:00+05:30", Some(1_769_826_600_000)),
            ("timestamptz", "2026-01-31T08:00:00.123999Z", Some(1_769_846_400_123)),
            ("timestamptz", "infinity", None),
            ("timestamp", "0044-03-15 12:00:00 BC", None),
            ("timestamp", "12026-01-31 08:00:00", None),
            ("digits", "0", None),
            ("digits", "+1", None),
            ("digits", "1769846400123456", None),
        ] {
            let read = RecordTime::named(name);
            assert_eq!(read.and_then(|read| read.milliseconds(cell.as_bytes())), expected, "{name} {cell}");
        }
        let binary = RecordTime::Microseconds;
        assert_eq!(binary.milliseconds(&microseconds.to_be_bytes()), Some(1_769_846_400_123));
        assert_eq!(binary.milliseconds(&i64::MAX.to_be_bytes()), None, "infinity");
        assert_eq!(binary.milliseconds(&i64::MIN.to_be_bytes()), None, "-infinity");
        assert_eq!(RecordTime::Integer.milliseconds(&1_i64.to_be_bytes()), Some(1));
        assert_eq!(RecordTime::Integer.milliseconds(&[0; 4]), None);
        assert_eq!(RecordTime::named(""), None);
    }

    #[test]
    fn excess_digits_are_cut_where_that_is_asked_for() {
        assert_eq!(time(b"17:45:00.1239", 3, true), Some(63_900_123));
        assert_eq!(timestamp(b"1969-12-31T23:59:59.9999Z", 3, false, true), Some(-1), "towards the past");
        assert_eq!(timestamp(b"1970-01-01T00:00:00.123456789Z", 6, false, true), Some(123_456));
        assert_eq!(timestamp(b"1970-01-01T00:00:00.1234x6Z", 3, false, true), None);
        assert_eq!(timestamp(b"1970-01-01T00:00:00.Z", 3, false, true), None);
    }
}
