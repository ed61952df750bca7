//! The shaders without a device: whatever the ops compose is valid WGSL for any WebGPU adapter and translates for
//! Vulkan, Metal and DirectX (but for what needs an extension); no file is unused; host structs lie as the shaders read
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use pard::low_level::gpu::{
    BINDINGS, Composition, KernelPlan, MatmulPath, Shaders, UNROLL, UNROLL_BUDGET, compose, shader_names,
};
use pard::low_level::ops::gradients::{AdamWStep, Label, RowLoss};
use pard::low_level::ops::{PassRow, Session, Step, TurnSampling};

use crate::ops::integer::INTEGER_PLANS;
use crate::ops::matmul::GPU_PLANS;
use crate::support::every_op::build_and_record;
use crate::support::gpu::{noop, noop_with_cooperative_matrices};

/// Compositions that the ops compile, as the device that compiled them reports. Made once for all tests.
fn compositions() -> &'static [Composition] {
    static COMPOSITIONS: LazyLock<Vec<Composition>> = LazyLock::new(all_compositions);
    &COMPOSITIONS
}

fn all_compositions() -> Vec<Composition> {
    let device = noop();
    for plan in [device.default_plan()].into_iter().chain(GPU_PLANS).chain(INTEGER_PLANS) {
        build_and_record(&device, &plan);
    }
    let mut compositions = device.compositions();
    let device = noop_with_cooperative_matrices();
    for tile in [8, 16] {
        build_and_record(&device, &KernelPlan { products: MatmulPath::Cooperative { tile }, ..device.default_plan() });
    }
    compositions.extend(device.compositions());
    // The noop adapter counts as software; a GPU's products are tiled otherwise.
    let gpu_tiles: &[(&str, &[(&str, u32)])] = &[
        ("cross_entropy", &[("LANES", 256)]),
        ("matmul_tile", &[("ROWS", 8), ("TILES", 4)]),
        ("matmul_cooperative", &[("THREADS", 128), ("PARTS", 2)]),
        ("matmul_experts", &[("BLOCKS", 2)]),
        ("expert_route", &[("LANES", 128)]),
        ("expert_groups", &[("LANES", 128)]),
        ("input_gradient", &[("THREADS", 32), ("ROWS", 8)]),
        ("column_sum", &[("SLICES", 8)]),
    ];
    for (kernel, tiles) in gpu_tiles {
        let software = compositions.iter().filter(|composition| composition.files[0] == *kernel);
        let gpu: Vec<Composition> = software
            .cloned()
            .map(|mut composition| {
                for (name, value) in &mut composition.constants {
                    *value = tiles.iter().find(|(tile, _)| tile == name).map_or(*value, |&(_, size)| size);
                }
                composition
            })
            .collect();
        assert!(!gpu.is_empty(), "no {kernel}");
        compositions.extend(gpu);
    }
    // Nor has it subgroups. One composition of each set of files shows that the other piece fits.
    let mut seen = BTreeSet::new();
    let with_subgroups = |composition: &Composition| {
        let at = composition.files.iter().position(|file| *file == "slice/invocation")?;
        let mut composition = composition.clone();
        composition.files[at] = "slice/subgroup";
        seen.insert(composition.files.clone()).then_some(composition)
    };
    let with_subgroups: Vec<Composition> = compositions.iter().filter_map(with_subgroups).collect();
    compositions.extend(with_subgroups);
    compositions.sort();
    compositions.dedup();
    compositions
}

fn parse(composition: &Composition) -> naga::Module {
    let text = compose(&Shaders::default(), &composition.files, &composition.constants).expect("known files");
    naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{composition:?}\n{}", error.emit_to_string(&text)))
}

fn is_cooperative(composition: &Composition) -> bool {
    composition.files[0] == "matmul_cooperative"
}

/// Checks it against what WebGPU has without any extension: that much half precision belongs to it. Only kernels made for
/// subgroups and for cooperative matrices may ask for more.
fn validate(composition: &Composition, module: &naga::Module) -> ModuleInfo {
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if composition.files.contains(&"slice/subgroup") {
        capabilities |= Capabilities::SUBGROUP;
    }
    if is_cooperative(composition) {
        capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
    }
    Validator::new(ValidationFlags::all(), capabilities)
        .validate(module)
        .unwrap_or_else(|error| panic!("{composition:?}\n{error:?}"))
}

#[test]
fn every_composition_is_valid_and_translates_everywhere() {
    let compositions = compositions();
    assert!(compositions.len() > 500, "{} compositions: some op was not driven", compositions.len());
    for composition in compositions {
        let module = parse(composition);
        let info = validate(composition, &module);
        let words = spv::write_vec(&module, &info, &spv::Options::default(), None);
        let words = words.unwrap_or_else(|error| panic!("{composition:?}: SPIR-V: {error:?}"));
        assert_eq!(words[0], 0x0723_0203, "SPIR-V begins with its magic number");
        let entry_points: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(entry_points, [composition.files[0]], "one entry point, named like the file");
        // Metal and DirectX get loops written out.
        let mut written_out = composition.clone();
        written_out.constants.push((UNROLL, UNROLL_BUDGET));
        let module = parse(&written_out);
        let info = validate(&written_out, &module);
        translate(&written_out, &module, &info);
    }
}

/// To Metal's and DirectX's languages, if they have what it takes.
fn translate(composition: &Composition, module: &naga::Module, info: &ModuleInfo) {
    let fault = |language: &str, error: &dyn std::fmt::Debug| -> ! { panic!("{composition:?}: {language}: {error:?}") };
    // Metal has matrices of 8 x 8 only, DirectX none.
    if composition.files.contains(&"cooperative/tile_16") {
        return;
    }
    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let (text, translated) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|error| fault("MSL", &error));
    let named = translated.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>();
    let named = named.unwrap_or_else(|error| fault("MSL", &error));
    assert!(text.contains(&named[0]));
    if is_cooperative(composition) {
        return;
    }
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
    let (mut text, pipeline) = (String::new(), hlsl::PipelineOptions::default());
    let translated = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| fault("HLSL", &error));
    let named = translated.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>();
    assert!(text.contains(&named.unwrap_or_else(|error| fault("HLSL", &error))[0]));
}

#[test]
fn every_file_is_used() {
    let named: BTreeSet<String> = shader_names().map(str::to_owned).collect();
    let used: BTreeSet<String> = compositions()
        .iter()
        .flat_map(|composition| &composition.files)
        .chain([&BINDINGS])
        .map(|&file| file.to_owned())
        .collect();
    assert_eq!(used, named, "files that no op uses");
}

/// A field's name, type and offset.
type Field = (String, &'static str, u32);

/// The structs of `module` by name, with their fields.
fn shader_structs(module: &naga::Module) -> BTreeMap<String, Vec<Field>> {
    let mut structs = BTreeMap::new();
    for (_, ty) in module.types.iter() {
        let (Some(name), naga::TypeInner::Struct { members, .. }) = (&ty.name, &ty.inner) else { continue };
        let fields = members.iter().map(|member| {
            let kind = match module.types[member.ty].inner {
                naga::TypeInner::Scalar(naga::Scalar::U32) => "u32",
                naga::TypeInner::Scalar(naga::Scalar::F32) => "f32",
                _ => "another type",
            };
            (member.name.clone().expect("a named field"), kind, member.offset)
        });
        structs.insert(name.clone(), fields.collect());
    }
    structs
}

/// The `#[repr(C)]` structs of engine/ops, read from its text, since most are private: fields of 4 bytes, in order.
fn host_structs() -> BTreeMap<String, Vec<Field>> {
    let mut structs = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/ops");
    let files = |folder: &Path| {
        std::fs::read_dir(folder).expect("a folder of ops").map(|entry| entry.expect("an entry").path())
    };
    for path in files(&folder).chain(files(&folder.join("gradients"))).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(path).expect("Rust");
        for part in text.split("#[repr(C)]").skip(1) {
            let (head, body) = part.split_once('{').expect("a struct's body");
            let name = head.split_whitespace().last().expect("a struct's name");
            let body = body.split_once('}').expect("a struct's end").0;
            let fields = body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
            let fields = fields.enumerate().map(|(index, line)| {
                let (field, kind) = line.trim_end_matches(',').split_once(": ").expect("a field");
                let kind = ["u32", "f32"].into_iter().find(|&known| known == kind);
                let kind = kind.unwrap_or_else(|| panic!("{name}: {line}: this test knows fields of 4 bytes only"));
                (field.trim_start_matches("pub ").to_owned(), kind, 4 * index as u32)
            });
            structs.insert(name.to_owned(), fields.collect());
        }
    }
    structs
}

#[test]
fn host_structs_lie_as_the_shaders_read_them() {
    let host = host_structs();
    let mut seen = BTreeSet::new();
    for composition in compositions() {
        let module = parse(composition);
        let shader = shader_structs(&module);
        for (name, fields) in &shader {
            if let Some(expected) = host.get(name) {
                assert_eq!(fields, expected, "{name} of {:?}", composition.files);
                seen.insert(name.clone());
            }
        }
        for (_, variable) in module.global_variables.iter() {
            if variable.space == naga::AddressSpace::Uniform {
                // Rows and turns are arrays; all else is a struct.
                let Some(name) = module.types[variable.ty].name.as_deref() else {
                    assert!(
                        matches!(variable.name.as_deref(), Some("x" | "query" | "batch" | "turns" | "sampling")),
                        "{:?}",
                        composition.files
                    );
                    continue;
                };
                assert!(host.contains_key(name), "{name} of {:?} has no struct on the host", composition.files);
            }
        }
    }
    assert_eq!(seen, host.into_keys().collect(), "structs of the host that no shader reads");
}

/// The reading of Rust text above, against the compiler, for the structs that can be named here.
#[test]
fn host_structs_are_read_as_the_compiler_lays_them_out() {
    let host = host_structs();
    macro_rules! laid_out {
        ($name:ident: $($field:ident),*) => {
            let offsets: Vec<(&str, usize)> = vec![$((stringify!($field), std::mem::offset_of!($name, $field))),*];
            let read: Vec<(&str, usize)> =
                host[stringify!($name)].iter().map(|(field, _, offset)| (field.as_str(), *offset as usize)).collect();
            assert_eq!(read, offsets, stringify!($name));
            assert_eq!(size_of::<$name>(), 4 * offsets.len(), stringify!($name));
        };
    }
    laid_out!(Step: start, rows, first_output, outputs, slot);
    laid_out!(PassRow: position, slot, output, choice);
    laid_out!(Session: tokens, target_rows, draft_rows);
    laid_out!(TurnSampling:
        temperature, seed, draft_seed, accept_seed, top_k, top_p, min_p_gap, repetition, presence, frequency, changes,
        logprobs);
    laid_out!(Label: id, weight, divergence_weight);
    laid_out!(RowLoss: cross_entropy, divergence, choice, teacher_choice);
    laid_out!(AdamWStep: learning_rate, beta1, beta2, epsilon, weight_decay, correction1, correction2, clip, number);
}
