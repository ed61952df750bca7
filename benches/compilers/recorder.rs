//! Matches the log of record.c's layer with the operations that were asked of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pard::low_level::gpu::{Composition, Device, KernelPlan, Pass, Shaders, compose};
use serde_json::{Map, Value, json};

/// Collects dispatches by operation, and modules by composition.
pub struct Recorder {
    folder: PathBuf,
    shaders: Shaders,
    /// Bytes of `log` that were read.
    read: u64,
    /// Compiles what cannot be told apart otherwise.
    spare: Device,
    /// Each module's composition.
    modules: BTreeMap<String, Composition>,
    known: BTreeSet<Composition>,
    uses: Vec<Value>,
    /// The reason for the choice of the recorded kernels: `default` where nothing is asked for.
    pub choice: &'static str,
}

/// A line of `log`.
enum Event {
    Pipeline { module: String, entry: String },
    Dispatch { module: String, grid: [u32; 3] },
}

impl Recorder {
    /// Writes to `folder`, as the layer does; `spare` is a device of `shaders`, to compile on.
    pub fn new(folder: &Path, shaders: Shaders, spare: Device) -> Result<Recorder, Box<dyn Error>> {
        let mut recorder = Recorder {
            folder: folder.to_owned(),
            shaders,
            read: 0,
            spare,
            modules: BTreeMap::new(),
            known: BTreeSet::new(),
            uses: Vec::new(),
            choice: "default",
        };
        recorder.events().map_err(|error| format!("is the layer of record.c there? {error}"))?;
        Ok(recorder)
    }

    /// Records what `record` encodes, as one operation that `what` describes.
    pub fn op(
        &mut self,
        device: &Device,
        what: Value,
        record: impl FnOnce(&mut Pass) -> pard::Result<()>,
    ) -> Result<(), Box<dyn Error>> {
        Pass::submit(device, None, record)?;
        let events = self.learn(device)?;
        let mut dispatches = Vec::new();
        for event in events {
            if let Event::Dispatch { module, grid } = event {
                dispatches.push(json!({ "module": module, "grid": grid }));
            }
        }
        let mut line = json!({ "choice": self.choice, "dispatches": dispatches });
        if let (Value::Object(line), Value::Object(what)) = (&mut line, what) {
            line.extend(what);
        }
        self.uses.push(line);
        Ok(())
    }

    /// Finds the compositions of the modules that came up since the last call.
    fn learn(&mut self, device: &Device) -> Result<Vec<Event>, Box<dyn Error>> {
        let events = self.events()?;
        let mut news: BTreeMap<&str, (Vec<Composition>, Vec<String>)> = BTreeMap::new();
        for composition in device.compositions() {
            if self.known.insert(composition.clone()) {
                news.entry(composition.files[0]).or_default().0.push(composition);
            }
        }
        for event in &events {
            // wgpu has pipelines of its own.
            if let Event::Pipeline { module, entry } = event
                && let Some((_, modules)) = news.get_mut(entry.as_str())
            {
                modules.push(module.clone());
            }
        }
        for (compositions, modules) in news.into_values() {
            if let ([composition], [module]) = (&compositions[..], &modules[..]) {
                self.modules.insert(module.clone(), composition.clone());
                continue;
            }
            for composition in compositions {
                let module = self.module_of(&composition)?;
                self.modules.insert(module, composition);
            }
        }
        Ok(events)
    }

    /// The module that `composition` becomes.
    fn module_of(&mut self, composition: &Composition) -> Result<String, Box<dyn Error>> {
        self.events()?;
        self.spare.kernel(&composition.files, &composition.constants)?;
        match self.events()?.pop() {
            Some(Event::Pipeline { module, .. }) => Ok(module),
            _ => Err(format!("no pipeline for {composition:?}").into()),
        }
    }

    /// The new lines of `log`.
    fn events(&mut self) -> Result<Vec<Event>, Box<dyn Error>> {
        let mut file = File::open(self.folder.join("log"))?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        self.read += file.read_to_string(&mut text)? as u64;
        let mut events = Vec::new();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["device", ..] => {}
                ["pipeline", module, entry, _] => {
                    events.push(Event::Pipeline { module: module.to_owned(), entry: entry.to_owned() });
                }
                ["dispatch", module, x, y, z] => {
                    let grid = [x.parse()?, y.parse()?, z.parse()?];
                    events.push(Event::Dispatch { module: module.to_owned(), grid });
                }
                _ => return Err(format!("a line of log: {line}").into()),
            }
        }
        Ok(events)
    }

    /// Writes down all that was found.
    pub fn finish(mut self, device: &Device, plan: &KernelPlan) -> Result<(), Box<dyn Error>> {
        self.learn(device)?;
        let mut choices: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for used in &self.uses {
            for dispatch in used["dispatches"].as_array().into_iter().flatten() {
                let module = dispatch["module"].as_str().unwrap_or_default();
                choices.entry(module).or_default().insert(used["choice"].as_str().unwrap_or_default());
            }
        }
        let mut lines = String::new();
        for (module, Composition { files, constants }) in &self.modules {
            let text = compose(&self.shaders, files, constants)?;
            fs::write(self.folder.join(format!("{module}.wgsl")), text)?;
            let constants: Map<String, Value> =
                constants.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
            let choices = choices.get(module.as_str()).cloned().unwrap_or_default();
            let line = json!({ "module": module, "files": files, "constants": constants, "choices": choices });
            lines += &format!("{line}\n");
        }
        fs::write(self.folder.join("kernels.jsonl"), lines)?;
        let uses: String = self.uses.iter().map(|used| format!("{used}\n")).collect();
        fs::write(self.folder.join("uses.jsonl"), uses)?;
        let adapter = json!({ "name": device.name(), "plan": plan.to_string() });
        fs::write(self.folder.join("adapter.json"), adapter.to_string())?;
        eprintln!("{} kernels, {} operations", self.modules.len(), self.uses.len());
        Ok(())
    }
}
