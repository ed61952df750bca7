//! The report while it grows: every result is in the file as soon as it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use pard::Error;
use serde_json::{Map, Value, json};

use crate::interrupt;
use crate::output::{self, Verbosity};

/// Field that marks a file as a report, and holds the version of its format.
pub const VERSION: &str = "pard_report";

/// A report that is being measured.
pub struct Record {
    fields: Map<String, Value>,
    lists: BTreeMap<&'static str, Vec<Value>>,
    folder: PathBuf,
    begin: Instant,
    limit: Duration,
    talk: Verbosity,
    /// Set if the device is lost: nothing more can be measured.
    lost: bool,
}

impl Record {
    /// An empty report, which is written to `folder` from here on.
    pub fn new(folder: &Path, limit: Duration, talk: Verbosity) -> anyhow::Result<Record> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut fields = Map::new();
        fields.insert(VERSION.to_owned(), json!(1));
        fields.insert("engine".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        fields.insert("begun".to_owned(), json!(date(since.as_secs())));
        fields.insert("command".to_owned(), json!(std::env::args().skip(1).collect::<Vec<_>>().join(" ")));
        fields.insert("time_limit_seconds".to_owned(), json!(limit.as_secs()));
        fields.insert("complete".to_owned(), json!(false));
        let record = Record {
            fields,
            lists: BTreeMap::from([("skipped", Vec::new())]),
            folder: folder.to_owned(),
            begin: Instant::now(),
            limit,
            talk,
            lost: false,
        };
        record.save()?;
        Ok(record)
    }

    /// Returns `true` if there is time for more.
    pub fn keep_going(&self) -> bool {
        !self.lost && self.begin.elapsed() < self.limit && !interrupt::requested()
    }

    /// Runs `work`, which measures `item`, if there is time. That it fails is written down and ends nothing else, unless the
    /// file itself cannot be written.
    pub fn item(&mut self, item: &str, work: impl FnOnce(&mut Record) -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.keep_going() {
            let reason = match (self.lost, interrupt::requested()) {
                (true, _) => "the device is lost",
                (_, true) => "the run was ended",
                _ => "the time was up",
            };
            return self.skip(item, reason);
        }
        self.talk.note(&format!("{:5.1} s: {item}", self.begin.elapsed().as_secs_f64()));
        let Err(error) = work(self) else { return Ok(()) };
        if matches!(error.downcast_ref(), Some(Error::Write { .. })) {
            return Err(error);
        }
        self.lost |= matches!(error.downcast_ref(), Some(Error::DeviceLost { .. }));
        self.skip(item, &crate::output::one_line(&error))
    }

    /// Writes down that `item` is not there, and why.
    pub fn skip(&mut self, item: &str, reason: &str) -> anyhow::Result<()> {
        self.talk.note(&format!("{item}: {reason}"));
        self.append("skipped", json!({ "item": item, "reason": reason }))
    }

    /// Puts `value` under `key`.
    pub fn set(&mut self, key: &str, value: Value) -> anyhow::Result<()> {
        self.fields.insert(key.to_owned(), value);
        self.save()
    }

    /// Adds `value` to the list under `key`.
    pub fn append(&mut self, key: &'static str, value: Value) -> anyhow::Result<()> {
        self.list(key).push(value);
        self.save()
    }

    /// The list under `key`, to be changed; [`Record::save`] writes it.
    pub fn list(&mut self, key: &'static str) -> &mut Vec<Value> {
        self.lists.entry(key).or_default()
    }

    /// The folder it is written to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the file.
    pub fn save(&self) -> anyhow::Result<()> {
        output::replace_file(&self.folder.join("report.json"), &format!("{:#}\n", self.document()))
    }

    fn document(&self) -> Value {
        let mut document = self.fields.clone();
        document.insert("seconds".to_owned(), json!(self.begin.elapsed().as_secs_f64()));
        document.extend(self.lists.iter().map(|(key, list)| ((*key).to_owned(), json!(list))));
        Value::Object(document)
    }

    /// Marks it as complete, unless it was ended, and gives it.
    pub fn finish(mut self) -> anyhow::Result<Value> {
        self.set("complete", json!(!self.lost && !interrupt::requested()))?;
        Ok(self.document())
    }
}

/// The day, in UTC, `seconds` after 1970 began: 2026-11-26.
fn date(seconds: u64) -> String {
    // Howard Hinnant's civil_from_days: years begin in March, eras of 400 years have 146097 days.
    let days = seconds / 86400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
