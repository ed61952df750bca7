// Reductions over the lanes of a workgroup, in one order whatever the adapter. Every lane gets the result; all have to call.
//
// Constants: LANES per workgroup, a power of two.
var<workgroup> lane_values: array<f32, LANES>;
var<workgroup> lane_indices: array<u32, LANES>;

// The sum of all lanes' values.
fn total(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    lane_values[lane] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { lane_values[lane] += lane_values[lane + half]; }
    }
    workgroupBarrier();
    return lane_values[0];
}

// The largest of all lanes' values.
fn largest_of(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    lane_values[lane] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { lane_values[lane] = max(lane_values[lane], lane_values[lane + half]); }
    }
    workgroupBarrier();
    return lane_values[0];
}

struct Highest { value: f32, index: u32 }

// The largest of all lanes' values and its index, the lowest among equals.
fn highest_of(lane: u32, own: Highest) -> Highest {
    workgroupBarrier();
    lane_values[lane] = own.value;
    lane_indices[lane] = own.index;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            let other = Highest(lane_values[lane + half], lane_indices[lane + half]);
            let here = Highest(lane_values[lane], lane_indices[lane]);
            if other.value > here.value || (other.value == here.value && other.index < here.index) {
                lane_values[lane] = other.value;
                lane_indices[lane] = other.index;
            }
        }
    }
    workgroupBarrier();
    return Highest(lane_values[0], lane_indices[0]);
}
