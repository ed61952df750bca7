//! Runs a model on a `wgpu::Device` that the application has opened for itself, and draws with, say.
//!
//!     cargo run --release --example shared_device

use pard::low_level::gpu::wgpu;
use pard::{Device, Engine, Model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;

    let shared = Device::from_wgpu(device.clone(), queue.clone(), None)?;
    let model = Model::load(&shared, "smollm2", Default::default())?;
    let engine = Engine::new(&model, None, Default::default())?;
    let limits = pard::Limits::default().max_tokens(24);
    for piece in engine.generate_with("The sky is blue because", engine.defaults(), limits)? {
        print!("{}", piece?);
    }
    println!();
    // The application's own work goes to the same queue, before, between and after.
    queue.submit([device.create_command_encoder(&Default::default()).finish()]);
    Ok(())
}
