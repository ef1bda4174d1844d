//! Event times: the text of a time field to a timestamp, and back for people.

use onceonly::Timestamp;

use crate::args::TimeFormat;

/// Reads the time in `text`; the error says what was expected.
pub(crate) fn parse(text: &[u8], format: TimeFormat) -> Result<Timestamp, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the time is not UTF-8".to_owned())?;
    let nanos = match format {
        TimeFormat::Rfc3339 => rfc3339(text),
        TimeFormat::Unix => decimal(text, 9),
        TimeFormat::UnixMs => decimal(text, 6),
    };
    let expected = match format {
        TimeFormat::Rfc3339 => "an RFC 3339 time, such as 2026-11-23T09:30:00Z",
        TimeFormat::Unix => "seconds since 1970",
        TimeFormat::UnixMs => "milliseconds since 1970",
    };
    let nanos = nanos.ok_or_else(|| format!("`{text}` is not {expected}"))?;
    i64::try_from(nanos)
        .map(Timestamp::from_unix_nanos)
        .map_err(|_| format!("`{text}` is outside the years 1678 to 2261"))
}

fn rfc3339(text: &str) -> Option<i128> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond)
}

/// A decimal number times ten to the `places`, exactly; digits beyond that are cut off.
fn decimal(text: &str, places: usize) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let mut value: i128 = whole.parse().ok()?;
    for place in 0..places {
        let digit = fraction.as_bytes().get(place).map_or(0, |b| b - b'0');
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    Some(if negative { -value } else { value })
}

/// For people: RFC 3339 in UTC, to the millisecond.
pub(crate) fn show(time: Timestamp) -> String {
    // Both ranges are checked at compile time by their types: 1677 to 2262 lies within jiff's.
    jiff::Timestamp::from_nanosecond(i128::from(time.as_unix_nanos()))
        .map_or_else(|_| time.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str, format: TimeFormat) -> Option<i64> {
        parse(text.as_bytes(), format).ok().map(Timestamp::as_unix_nanos)
    }

    #[test]
    fn seconds_and_milliseconds_are_exact() {
        use TimeFormat::{Unix, UnixMs};
        assert_eq!(nanos("1700000000", Unix), Some(1_700_000_000_000_000_000));
        assert_eq!(nanos("1700000000.000000001", Unix), Some(1_700_000_000_000_000_001));
        assert_eq!(nanos("-1.5", Unix), Some(-1_500_000_000));
        assert_eq!(nanos("1700000000123", UnixMs), Some(1_700_000_000_123_000_000));
        assert_eq!(nanos("0.0000019", UnixMs), Some(1));
        for wrong in ["", "-", ".5", "5.", "1e9", "+1", " 1", "1,5", "99999999999999999999999999"] {
            assert_eq!(nanos(wrong, Unix), None, "{wrong}");
        }
    }

    #[test]
    fn rfc_3339_knows_offsets_and_decimals() {
        let time = |text| nanos(text, TimeFormat::Rfc3339);
        assert_eq!(time("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(time("1970-01-01T02:00:00.25+02:00"), Some(250_000_000));
        assert_eq!(time("2013-01-01"), None);
        assert_eq!(time("2013-01-01T05:00:00"), None);
        assert_eq!(time("9999-01-01T00:00:00Z"), None);
        assert_eq!(show(Timestamp::from_unix_millis(-1)), "1969-12-31T23:59:59.999Z");
    }
}
