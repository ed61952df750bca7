//! Stop strings in text that comes in pieces: what might be the beginning of one is held until it is decided.

/// Finds the first stop string in a growing text.
pub struct StopStrings {
    strings: Vec<String>,
    /// Text that may be the beginning of a stop string; shorter than the longest of them.
    held: String,
    found: Option<usize>,
}

impl StopStrings {
    /// Looks for `strings`; empty ones are ignored.
    pub fn new(mut strings: Vec<String>) -> StopStrings {
        strings.retain(|string| !string.is_empty());
        StopStrings { strings, held: String::new(), found: None }
    }

    /// Takes more text, and gives what surely comes before any stop string. After one was found, nothing comes.
    pub fn push(&mut self, text: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        // The one that is complete first ends the text, and of several that end together the longest, so that the
        // result does not depend on how the text was cut into pieces.
        let matches = self.strings.iter().enumerate();
        let first =
            matches.filter_map(|(index, stop)| self.held.find(stop).map(|at| (at + stop.len(), at, index))).min();
        if let Some((_, at, index)) = first {
            self.found = Some(index);
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return text;
        }
        let rest = self.held.split_off(self.decided());
        std::mem::replace(&mut self.held, rest)
    }

    /// Gives what is held: the text is over.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that was found.
    pub fn found(&self) -> Option<&str> {
        self.found.map(|index| self.strings[index].as_str())
    }

    /// Bytes of the held text before every possible beginning of a stop string.
    fn decided(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let earliest = self.held.len().saturating_sub(longest.saturating_sub(1));
        (earliest..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.strings.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len())
    }
}
