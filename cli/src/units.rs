//! Durations, rates and amounts, as people write and read them.

use std::time::Duration;

/// Keys per span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) keys_per_second: f64,
}

/// Parses `90s`, `1h`, `7d`, `1h 30m`.
pub(crate) fn parse_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, such as 90s, 1h or 7d"))?;
    if window.is_zero() {
        return Err("a window of zero remembers nothing".into());
    }
    Ok(window)
}

/// Parses `50k/s`, `3M/h`, `1.5G/d`.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("`{text}` is not a rate, such as 50k/s, 3M/h or 1.5G/d");
    let (amount, span) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match span {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let (number, factor) = match amount.strip_suffix(['k', 'K', 'M', 'G']) {
        Some(number) => match &amount[number.len()..] {
            "M" => (number, 1e6),
            "G" => (number, 1e9),
            _ => (number, 1e3),
        },
        None => (amount, 1.0),
    };
    // f64 would also take "inf", "nan" and "1e400".
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let keys_per_second = number * factor / seconds;
    if keys_per_second > 0.0 && keys_per_second.is_finite() {
        Ok(Rate { keys_per_second })
    } else {
        Err(wrong())
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the binary unit that leaves one to three digits before the point.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if amount < 1024 {
        return format!("{amount} B");
    }
    let mut value = amount as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A duration in days, hours, minutes and seconds; below a minute in one unit.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    if seconds < 60 {
        return short_duration(value);
    }
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m")];
    let parts = parts.into_iter().chain([(seconds % 60, "s")]);
    let shown: Vec<String> = parts
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, unit)| format!("{amount}{unit}"))
        .collect();
    shown.join(" ")
}

/// A duration in one unit, to three digits.
pub(crate) fn short_duration(value: Duration) -> String {
    let nanos = value.as_nanos() as f64;
    let (amount, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let decimals = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
    let text = format!("{amount:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_number_a_suffix_and_a_span() {
        let rate = |text| parse_rate(text).map(|rate| rate.keys_per_second);
        assert_eq!(rate("50k/s"), Ok(50_000.0));
        assert_eq!(rate("50K/s"), Ok(50_000.0));
        assert_eq!(rate("3.6M/h"), Ok(1_000.0));
        assert_eq!(rate("60/m"), Ok(1.0));
        assert_eq!(rate("86.4G/d"), Ok(1_000_000.0));
        for wrong in ["", "50k", "/s", "k/s", "50k/w", "-1/s", "0/s", "nan/s", "inf/s", "1e9/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_are_longer_than_zero() {
        assert_eq!(parse_window("1h 30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "0s", "7", "h", "-1h", "1 fortnight"] {
            assert!(parse_window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(Duration::new(3_661, 5)), "1h 1m 1s");
        assert_eq!(duration(Duration::from_secs(7 * 86_400)), "7d");
        assert_eq!(duration(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(short_duration(Duration::from_micros(20)), "20 µs");
        assert_eq!(short_duration(Duration::from_nanos(1_234)), "1.23 µs");
        assert_eq!(short_duration(Duration::from_nanos(100)), "100 ns");
        assert_eq!(short_duration(Duration::from_secs(1_000)), "1000 s");
    }
}
