//! What a key looks like that scopegate made: a prefix, 43 random characters, and six that are computed from the rest.
//!
//! So a scanner for secrets knows one by its form, and one that was copied badly is seen without a look-up.

/// Base 62, so that a double click takes all of it.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 256 bits: nobody guesses one, and a fast digest of it is safe.
pub const RANDOM: usize = 43;
/// As many as 32 bits take.
const CHECK: usize = 6;
/// What keys made here begin with where nothing else was written.
pub const PREFIX: &str = "sgk_";
/// Prefixes have this many characters at the most.
const LONGEST_PREFIX: usize = 32;

/// Whether a word can be what keys begin with.
#[must_use]
pub fn is_prefix(word: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    word.len() <= LONGEST_PREFIX && word.len() > 1 && word.ends_with('_') && word.bytes().all(good)
}

/// The character of a random byte; nothing for those that would make some characters more likely than others.
#[must_use]
pub fn character(byte: u8) -> Option<char> {
    let fair = usize::from(byte) < 256 / DIGITS.len() * DIGITS.len();
    DIGITS.get(usize::from(byte) % DIGITS.len()).filter(|_| fair).map(|digit| char::from(*digit))
}

/// The key of a prefix and its random characters.
#[must_use]
pub fn key(prefix: &str, random: &str) -> String {
    let begun = format!("{prefix}{random}");
    let check = check(begun.as_bytes());
    begun + &check.map(char::from).iter().collect::<String>()
}

/// False for a key that begins as ours do and does not end as ours do. Others' keys are opaque.
#[must_use]
pub fn may_be_whole(prefix: &str, key: &[u8]) -> bool {
    if !key.starts_with(prefix.as_bytes()) {
        return true;
    }
    // By its length first, so that a long one costs no more.
    if key.len() != prefix.len() + RANDOM + CHECK {
        return false;
    }
    key.split_last_chunk::<CHECK>().is_some_and(|(begun, end)| *end == check(begun))
}

fn check(begun: &[u8]) -> [u8; CHECK] {
    let (mut rest, mut check) = (crc32(begun), [b'0'; CHECK]);
    for place in check.iter_mut().rev() {
        *place = DIGITS.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    check
}

/// The CRC of zip and Ethernet. Without a table: it is of fifty bytes, and of keys of our own only.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_badly_is_seen_and_what_others_made_is_let_be() {
        let made = key(PREFIX, &"x".repeat(RANDOM));
        assert!(may_be_whole(PREFIX, made.as_bytes()));
        for place in PREFIX.len()..made.len() {
            for other in ["", "y", "yy", "_"] {
                let mut wrong = made.clone();
                wrong.replace_range(place..=place, other);
                assert!(!may_be_whole(PREFIX, wrong.as_bytes()), "{wrong}");
            }
        }
        let end = made.strip_prefix(PREFIX).expect("a prefix");
        for others in [&made.to_uppercase(), end, "", "sgk", "sk_live_1", &format!("sgl_{end}")] {
            assert!(may_be_whole(PREFIX, others.as_bytes()), "{others}");
        }
        assert!(!may_be_whole("acme_", format!("acme_{end}").as_bytes()), "the prefix counts too");
    }

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(&check(b"123456789"), b"3jZRME");
    }

    #[test]
    fn every_character_is_as_likely_as_another() {
        let mut counts = std::collections::BTreeMap::new();
        for character in (0..=255).filter_map(character) {
            *counts.entry(character).or_insert(0) += 1;
        }
        assert!(counts.len() == 62 && counts.values().all(|count| *count == 4), "{counts:?}");
    }

    #[test]
    fn a_prefix_is_a_word_that_ends_in_a_line() {
        for (word, wanted) in
            [("sgk_", true), ("acme_live_", true), ("sgk", false), ("_", false), ("a-b_", false)]
        {
            assert_eq!(is_prefix(word), wanted, "{word}");
        }
        assert!(!is_prefix(&format!("{}_", "a".repeat(LONGEST_PREFIX))));
    }
}
