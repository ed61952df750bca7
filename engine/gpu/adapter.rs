//! Adapters of this machine: their capabilities, and the choice of one.
//! wgpu's own `HighPerformance` may pick the integrated card and its environment helper panics on a wrong name, so
//! adapters are listed, scored and filtered here; `WGPU_BACKEND`, `WGPU_ADAPTER_NAME` and `WGPU_DX12_COMPILER` are
//! honoured.

use crate::error::{Error, OptionName, Result};

/// Request for an adapter. The default takes the best one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterQuery {
    /// An index into [`adapters`]'s list, or a part of the adapter's name in any case.
    pub device: Option<String>,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: Option<String>,
}

crate::builder::setters! {
    AdapterQuery {
        device: Option<String>,
        backend: Option<String>,
    }
}

/// The newest Mesa whose software driver was seen to loop over the lanes of a load (benches/RESULTS.md).
const LAST_LOOPING_MESA: u32 = 22;

/// Properties and capabilities of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// Its place in the list.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// `true` if the driver turns a load from storage into a loop over the lanes, which makes it several times as slow as
    /// later ones.
    pub loops_over_lanes: bool,
    /// The largest storage binding, in bytes.
    pub largest_binding: u64,
    /// The largest buffer, in bytes.
    pub largest_buffer: u64,
    /// Workgroup memory, in bytes.
    pub workgroup_memory: u32,
    /// Invocations a workgroup may have.
    pub workgroup_size: u32,
    /// `true` if shaders may compute in f16.
    pub f16: bool,
    /// The narrowest and widest subgroup, if shaders may use subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// The shapes of cooperative matrices, as `m x n x k, inputs -> sums`.
    pub cooperative_matrices: Vec<String>,
    /// Timestamps that are supported: `inside passes`, of each kernel, `around passes` or `none`.
    pub timestamps: &'static str,
    /// Compiler that its shaders pass before the driver's, for an adapter of DX12.
    pub shader_compiler: Option<String>,
    /// `true` if this adapter is the one that would be used.
    pub chosen: bool,
    /// Why, in words.
    pub reason: String,
}

/// All adapters, the chosen one marked.
///
/// # Errors
///
/// [`Error::Adapter`] if nothing matches, with the list; [`Error::Option`] for an unknown backend.
pub fn adapters(query: &AdapterQuery) -> Result<Vec<AdapterReport>> {
    let found = Found::enumerate(query)?;
    let chosen = found.choose(query)?;
    Ok(found
        .adapters
        .iter()
        .enumerate()
        .map(|(index, adapter)| report(index, adapter, &found.compiler, Some(&chosen).filter(|(at, _)| *at == index)))
        .collect())
}

/// Returns `true` if two queries that name the same backend, or none, ask for the same adapter.
///
/// # Errors
///
/// Those of [`adapters`].
pub fn is_same_adapter(one: &AdapterQuery, other: &AdapterQuery) -> Result<bool> {
    let index = |query| Ok(adapters(query)?.iter().position(|adapter| adapter.chosen));
    Ok(one == other || index(one)? == index(other)?)
}

/// The adapter that `query` asks for.
pub(super) fn choose(query: &AdapterQuery) -> Result<wgpu::Adapter> {
    let mut found = Found::enumerate(query)?;
    let (index, _) = found.choose(query)?;
    Ok(found.adapters.swap_remove(index))
}

struct Found {
    adapters: Vec<wgpu::Adapter>,
    /// Shader compiler for adapters of DX12.
    compiler: wgpu::Dx12Compiler,
}

/// The environment variable `name`; one that is empty counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The backends that `query` names, or else `WGPU_BACKEND`, which may list several; all where neither names one.
fn backends(query: &AdapterQuery) -> Result<wgpu::Backends> {
    const KNOWN: [(&[&str], wgpu::Backends); 3] = [
        (&["vulkan", "vk"], wgpu::Backends::VULKAN),
        (&["metal", "mtl"], wgpu::Backends::METAL),
        (&["dx12", "d3d12"], wgpu::Backends::DX12),
    ];
    let here = wgpu::Instance::enabled_backend_features();
    let here: Vec<_> = KNOWN.into_iter().filter(|(_, backend)| here.contains(*backend)).collect();
    let Some(names) = query.backend.clone().or_else(|| variable("WGPU_BACKEND")) else {
        return Ok(KNOWN.iter().fold(wgpu::Backends::empty(), |all, (_, backend)| all | *backend));
    };
    let is_named = |known: &[&str]| names.split(',').any(|name| known.contains(&name.trim().to_lowercase().as_str()));
    let named = here.iter().filter(|(known, _)| is_named(known));
    let backends = named.fold(wgpu::Backends::empty(), |all, (_, backend)| all | *backend);
    if !backends.is_empty() {
        return Ok(backends);
    }
    let here: Vec<&str> = here.iter().map(|(known, _)| known[0]).collect();
    let reason = format!("{names:?} is no backend of this platform, which has {}", here.join(" and "));
    match query.backend {
        Some(_) => Err(Error::Option { option: OptionName::Backend, reason }),
        None => Err(Error::Option { option: OptionName::BackendVariable, reason }),
    }
}

/// Returns `true` if dispatches are to be named for RenderDoc, Radeon GPU Profiler and Nsight: `PARD_LABELS=1`.
pub(super) fn labels_wanted() -> bool {
    std::env::var("PARD_LABELS").is_ok_and(|value| value == "1")
}

/// DX12's shader compiler: the one in `WGPU_DX12_COMPILER` (`fxc`, `dxc` or the path of a dxcompiler.dll), else the new one
/// if its library lies beside the program or in `PATH`, else the old one, which Windows comes with.
fn dx12_compiler() -> wgpu::Dx12Compiler {
    const LIBRARY: &str = "dxcompiler.dll";
    if let Some(path) = variable("WGPU_DX12_COMPILER")
        && path.to_lowercase().ends_with(".dll")
    {
        return wgpu::Dx12Compiler::DynamicDxc { dxc_path: path };
    }
    if let Some(named) = wgpu::Dx12Compiler::from_env() {
        return named;
    }
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = beside.into_iter().chain(std::env::split_paths(&path));
    match folders.find(|folder| cfg!(windows) && folder.join(LIBRARY).is_file()) {
        Some(folder) => {
            wgpu::Dx12Compiler::DynamicDxc { dxc_path: folder.join(LIBRARY).to_string_lossy().into_owned() }
        }
        None => wgpu::Dx12Compiler::Fxc,
    }
}

/// A compiler as users see it.
fn compiler_name(compiler: &wgpu::Dx12Compiler) -> String {
    match compiler {
        wgpu::Dx12Compiler::Fxc => "FXC".to_owned(),
        wgpu::Dx12Compiler::DynamicDxc { dxc_path } => format!("DXC ({dxc_path})"),
        wgpu::Dx12Compiler::StaticDxc => "DXC, linked in".to_owned(),
        wgpu::Dx12Compiler::Auto => "DXC, or FXC where it is absent".to_owned(),
    }
}

impl Found {
    fn enumerate(query: &AdapterQuery) -> Result<Found> {
        let backends = backends(query)?;
        let enumerate = |compiler: &wgpu::Dx12Compiler| {
            let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
            descriptor.backends = backends;
            // Nothing is dispatched indirectly; wgpu would compile shaders that check it whenever a device is opened.
            descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
            descriptor.backend_options.dx12.shader_compiler = compiler.clone();
            if labels_wanted() {
                // Without it wgpu tells drivers no names.
                descriptor.flags |= wgpu::InstanceFlags::DEBUG;
            }
            pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
        };
        let mut compiler = dx12_compiler();
        let mut adapters = enumerate(&compiler);
        // A library that does not load takes all of DX12 with it; Windows has the old compiler at least.
        let has_dx12 = adapters.iter().any(|adapter| adapter.get_info().backend == wgpu::Backend::Dx12);
        if cfg!(windows)
            && backends.contains(wgpu::Backends::DX12)
            && !has_dx12
            && !matches!(compiler, wgpu::Dx12Compiler::Fxc)
        {
            compiler = wgpu::Dx12Compiler::Fxc;
            adapters = enumerate(&compiler);
        }
        Ok(Found { adapters, compiler })
    }

    /// The chosen adapter's index and the reason.
    fn choose(&self, query: &AdapterQuery) -> Result<(usize, String)> {
        let named = query.device.clone().or_else(|| variable("WGPU_ADAPTER_NAME"));
        let best = |candidates: &mut dyn Iterator<Item = usize>| candidates.max_by_key(|&at| self.score(at));
        let Some(named) = named else {
            let index = best(&mut (0..self.adapters.len())).ok_or_else(|| self.none("of any kind".to_owned()))?;
            return Ok((index, format!("the most capable kind here ({})", kind(&self.adapters[index].get_info()))));
        };
        if let Ok(index) = named.parse::<usize>()
            && index < self.adapters.len()
        {
            return Ok((index, format!("asked for by its index {index}")));
        }
        let matches = |at: &usize| self.name(*at).to_lowercase().contains(&named.to_lowercase());
        let index = best(&mut (0..self.adapters.len()).filter(matches))
            .ok_or_else(|| self.none(format!("with the index or name {named:?}")))?;
        Ok((index, format!("asked for by the name {named:?}")))
    }

    fn name(&self, index: usize) -> String {
        self.adapters[index].get_info().name
    }

    /// Kinds by expected speed; among equals the first listed wins, and native backends outrank translated ones.
    fn score(&self, index: usize) -> (u32, u32, std::cmp::Reverse<usize>) {
        let info = self.adapters[index].get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 4,
            wgpu::DeviceType::IntegratedGpu => 3,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 1,
            wgpu::DeviceType::Cpu => 0,
        };
        let backend = u32::from(matches!(info.backend, wgpu::Backend::Vulkan | wgpu::Backend::Metal));
        (kind, backend, std::cmp::Reverse(index))
    }

    fn none(&self, wanted: String) -> Error {
        let found: Vec<String> = (0..self.adapters.len()).map(|at| format!("{at}: {}", self.name(at))).collect();
        let found = if found.is_empty() { format!("none. {}", driver_advice()) } else { found.join("; ") };
        Error::Adapter { wanted, found }
    }
}

/// Advice for a system without adapters.
fn driver_advice() -> &'static str {
    match std::env::consts::OS {
        "linux" => {
            "Install the graphics driver; on Debian or Ubuntu without a GPU: apt-get install mesa-vulkan-drivers libvulkan1"
        }
        "windows" => {
            "Install the newest driver from the card's maker (AMD, Intel, NVIDIA); without a card, DX12 runs on the software \
             adapter (WARP) that Windows 10 and newer have"
        }
        _ => "Install the newest system, which the graphics driver is a part of",
    }
}

fn kind(info: &wgpu::AdapterInfo) -> &'static str {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// Returns `true` for Mesa's software driver of a release that turns a load from storage into a loop over the lanes.
pub(super) fn loops_over_lanes(info: &wgpu::AdapterInfo) -> bool {
    let release = info.driver_info.strip_prefix("Mesa ").and_then(|release| release.split('.').next()?.parse().ok());
    info.device_type == wgpu::DeviceType::Cpu && release.is_some_and(|release: u32| release <= LAST_LOOPING_MESA)
}

fn report(
    index: usize,
    adapter: &wgpu::Adapter,
    compiler: &wgpu::Dx12Compiler,
    chosen: Option<&(usize, String)>,
) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let cooperative_matrices = adapter
        .cooperative_matrix_properties()
        .iter()
        .map(|p| format!("{}x{}x{}, {:?} -> {:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type))
        .collect();
    AdapterReport {
        index,
        name: info.name.clone(),
        backend: info.backend.to_str().to_owned(),
        kind: kind(&info),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        loops_over_lanes: loops_over_lanes(&info),
        largest_binding: limits.max_storage_buffer_binding_size,
        largest_buffer: limits.max_buffer_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        workgroup_size: limits.max_compute_invocations_per_workgroup,
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        cooperative_matrices,
        timestamps: if features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            "inside passes"
        } else if features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            "around passes"
        } else {
            "none"
        },
        shader_compiler: (info.backend == wgpu::Backend::Dx12).then(|| compiler_name(compiler)),
        chosen: chosen.is_some(),
        reason: chosen.map(|(_, reason)| reason.clone()).unwrap_or_default(),
    }
}
