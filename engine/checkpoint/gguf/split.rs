//! Names of the files that a split GGUF file was written to, which is how they are found: `name-00001-of-00003.gguf`.

/// The name of one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::checkpoint) struct PartName<'a> {
    /// The part of the name that all of them share.
    pub stem: &'a str,
    /// Its number, from 1.
    pub number: u32,
    /// The number of files.
    pub count: u32,
}

impl PartName<'_> {
    /// Takes a file's name apart, if it is a part's.
    pub fn parse(name: &str) -> Option<PartName<'_>> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |digits: &str| digits.len() == 5 && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(number) || !is_number(count) {
            return None;
        }
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        (1..=count).contains(&number).then_some(PartName { stem, number, count })
    }

    /// The name of file `number`.
    pub fn of(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }
}
