//! Targets of requests, near to given patterns and bent in every way that some router or other reads differently.

/// The same targets for the same seed.
pub struct Paths {
    state: u64,
    patterns: Vec<String>,
}

/// What is written into a path, or in place of a byte of it.
const PIECES: &[&str] = &[
    "/",
    "//",
    "\\",
    ".",
    "..",
    "/.",
    "/..",
    "/./",
    "/../",
    "...",
    ";",
    ";a=b",
    "/;",
    "?",
    "?a=b",
    "??",
    "#",
    "#/",
    "*",
    "/*",
    "/**",
    ":",
    "::",
    "/:id",
    "{id}",
    "@",
    "+",
    "~",
    "!",
    "(",
    ")",
    "'",
    "$",
    "&",
    ",",
    "=",
    " ",
    "|",
    "\"",
    "^",
    "`",
    "é",
    "%",
    "%4",
    "%zz",
    "%%41",
    "%+1",
    "%u0061",
    "%2f",
    "%2F",
    "/%2f",
    "%5c",
    "%5C",
    "%2e",
    "%2E%2e",
    "/%2e/",
    "/%2e%2e/",
    ".%2e",
    "%3b",
    "%3B",
    "%3f",
    "%3F",
    "%23",
    "%24",
    "%25",
    "%252f",
    "%252e",
    "%2541",
    "%25%32%66",
    "%25zz",
    "%26",
    "%2a",
    "%2A",
    "%2b",
    "%2B",
    "%2c",
    "%3a",
    "%3A",
    "%3d",
    "%40",
    "%21",
    "%27",
    "%28",
    "%7e",
    "%20",
    "%22",
    "%7b",
    "%00",
    "%0a",
    "%1f",
    "%7f",
    "%c0%af",
    "%c0%ae",
    "%e0%80%af",
    "%ff",
    "%80",
    "%ed%a0%80",
    "%f4%90%80%80",
    "%C3%A9",
    "%e2%84%aa",
    "%C4%B0",
    "%c5%bf",
    "%F0%9F%98%80",
    "%e2%80%a8",
    "%EF%BB%BF",
    "%EF%BC%8F",
    "%61",
    "%41",
    "%6",
    "%2",
];

/// What stands for a parameter, or below a tail.
const SEGMENTS: &[&str] =
    &["7", "a", "x-y", "id.json", "%20", "%C3%A9", "a%40b", "%2F", "%25", "a:b", "", "secret", "9~"];

impl Paths {
    /// Around patterns such as `/a/{id}/**`, or `/a/:id/*`.
    pub fn new(seed: u64, patterns: Vec<String>) -> Self {
        Self { state: seed, patterns }
    }

    /// The next of the numbers of `SplitMix64`, cut to what is below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// One segment of one of the patterns, or any other.
    fn segment(&mut self) -> String {
        let literal = |segment: &&str| !segment.is_empty() && !segment.starts_with(['{', ':', '*']);
        match self.below(8) {
            0..3 => self.pick(SEGMENTS).to_owned(),
            3 => self.long(),
            4 => self.pick(SEGMENTS).to_owned() + self.pick(SEGMENTS),
            _ => {
                let pattern = self.pick(&self.patterns.clone());
                let literals: Vec<_> = pattern.split('/').filter(literal).collect();
                if literals.is_empty() { "a".to_owned() } else { self.pick(&literals).replace("::", ":") }
            }
        }
    }

    /// Around the most that find-my-way takes for a parameter, counted in its own units.
    fn long(&mut self) -> String {
        let letter = self.pick(&["x", "x", "%78", "%C3%A9", "%F0%9F%98%80", "%40"]);
        let most = self.pick(&[20, 100, 100, 100, 120, 500]);
        let units = if letter == "%F0%9F%98%80" { most / 2 } else { most };
        letter.repeat(units - 1) + &"y".repeat(self.below(4))
    }

    /// A path of one of the patterns.
    fn plain(&mut self) -> String {
        let pattern = self.pick(&self.patterns.clone());
        let mut path = String::new();
        for segment in pattern.split('/').skip(1) {
            match segment {
                "*" | "**" => {
                    for _ in 0..self.below(4) {
                        path = path + "/" + &self.segment();
                    }
                }
                _ if segment.starts_with('{') || segment.starts_with(':') && !segment.starts_with("::") => {
                    path = path + "/" + &self.segment();
                }
                _ => path = path + "/" + &segment.replace("::", ":"),
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// The next one; it begins with a slash.
    pub fn next(&mut self) -> String {
        let mut path = self.plain();
        for _ in 0..self.pick(&[0, 1, 1, 1, 2, 2, 3]) {
            path = self.bend(&path);
            if !path.starts_with('/') {
                path.insert(0, '/');
            }
        }
        path
    }

    fn bend(&mut self, path: &str) -> String {
        let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let place = self.below(segments.len());
        let at = loop {
            let at = self.below(path.len());
            if path.is_char_boundary(at) {
                break at;
            }
        };
        let (before, behind) = path.split_at(at);
        let letter = behind.chars().next().unwrap_or('/');
        let after = behind.get(letter.len_utf8()..).unwrap_or_default();
        match self.below(15) {
            0 => return format!("{path}/"),
            1 => return path.trim_end_matches('/').to_owned(),
            2 => return format!("{before}{after}"),
            3 => return format!("{before}{}{behind}", self.pick(PIECES)),
            4 => return format!("{before}{}{after}", self.pick(PIECES)),
            5 => {
                let flipped = if letter.is_ascii_lowercase() {
                    letter.to_ascii_uppercase()
                } else {
                    letter.to_ascii_lowercase()
                };
                return format!("{before}{flipped}{after}");
            }
            6 if letter.is_ascii() => return format!("{before}%{:02x}{after}", letter as u32),
            7 if letter.is_ascii() => return format!("{before}%{:02X}{after}", letter as u32),
            8 if letter.is_ascii() => return format!("{before}%25{:02x}{after}", letter as u32),
            9 => segments[place] = segments[place].to_uppercase(),
            10 => segments[place] = self.segment(),
            11 => segments.insert(place, self.segment()),
            12 => {
                segments.remove(place);
            }
            13 => {
                let other = self.plain();
                let cut = self.below(other.len());
                segments.truncate(place);
                segments.push(other.get(cut..).unwrap_or_default().trim_start_matches('/').to_owned());
            }
            _ => segments[place] = segments[place].replace('k', "%e2%84%aa").replace('i', "%C4%B0"),
        }
        format!("/{}", segments.join("/"))
    }
}
