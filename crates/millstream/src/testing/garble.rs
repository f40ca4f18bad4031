//! Chance that a seed decides, and what it makes of what was right.

/// Garbles what was right: the same seed does the same again. For tests of whatever reads what strangers send.
#[derive(Clone, Debug)]
pub struct Garble(u64);

/// What has gone wrong in the field, or is at the edge of what some reader takes.
const NASTY: [&[u8]; 40] = [
    b"\0",
    b"\xFF",
    b"\xC3",
    b"\xEF\xBB\xBF",
    b"\xED\xA0\x80",
    "\u{202e}".as_bytes(),
    "\u{1F4A9}".as_bytes(),
    b"\\ud800",
    b"\\u0000",
    b"\r\n",
    b"\x1b[2J",
    b"%",
    b"%00",
    b"%FF",
    b"%2F",
    b"+",
    b"*",
    b">",
    b".",
    b"..",
    b"$JS.API",
    b" ",
    b"~",
    b"\"",
    b"{",
    b"}",
    b"[",
    b",",
    b"null",
    b"true",
    b"-1",
    b"-0",
    b"1e400",
    b"1E+2",
    b"0.1234567890123456789",
    b"18446744073709551617",
    b"9223372036854775807",
    b"\"currency\":\"USD\",",
    b"+292277026596-12-04T15:30:07Z",
    b"ffffffff-ffff-7fff-bfff-ffffffffffff",
];

impl Garble {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins as `MILLSTREAM_SEED` says, or with 1.
    pub fn from_env() -> Self {
        Self(number("MILLSTREAM_SEED").unwrap_or(1))
    }

    /// How much is to be tried: as `MILLSTREAM_GARBLED` says, or this much.
    pub fn count(otherwise: u64) -> u64 {
        number("MILLSTREAM_GARBLED").unwrap_or(otherwise)
    }

    /// Any number: SplitMix64.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 on that is less than this, or 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end.max(1)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())].clone()
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    /// A place in bytes that may be empty.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.index(length + 1);
        let end = start + self.index((length - start).min(40) + 1);
        start..end
    }

    /// Some bytes with one to four changes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let range = self.range(bytes.len());
            let new = match self.below(8) {
                0 => vec![],
                1 => bytes[range.clone()].repeat(2),
                2 => vec![self.any().to_le_bytes()[0]],
                3 => format!("{}", self.any()).into_bytes(),
                4 if self.below(20) == 0 => self.pick(&NASTY).repeat(20_000),
                5 => {
                    let times = 1 + self.index(300);
                    self.pick(&NASTY).repeat(times)
                }
                _ => self.pick(&NASTY).to_vec(),
            };
            drop(bytes.splice(range, new));
        }
        bytes
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, and is `{text}`")))
}
