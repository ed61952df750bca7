//! Prompts that wait: in order, within the time that rounds of others may wait, and none for ever.

#[path = "../../../cli/serve/reading.rs"]
mod budget;

use std::time::Duration;

use budget::PromptBudget;

/// A device that reads a token in `token` seconds, and takes `fixed` for a prompt's piece however short.
struct Device {
    token: f64,
    fixed: f64,
}

/// Reads prompts of `lens` tokens, all there from the start: the time of each turn, and the turn in which each was complete.
fn read(budget: &mut PromptBudget, device: &Device, lens: &[usize]) -> (Vec<f64>, Vec<usize>) {
    let (mut unread, mut times, mut complete) = (lens.to_vec(), Vec::new(), vec![0; lens.len()]);
    while unread.iter().any(|&tokens| tokens > 0) {
        let pieces = budget.pieces(&unread);
        let begun: Vec<usize> = (0..lens.len()).filter(|&index| pieces[index] > 0).collect();
        let (last, before) = begun.split_last().expect("a turn without a piece");
        assert!(before.iter().all(|&index| pieces[index] == unread[index]), "two are begun: {pieces:?}");
        assert!(unread[..*last].iter().zip(&pieces).all(|(unread, piece)| unread == piece), "not in order: {pieces:?}");
        let seconds: f64 = begun.iter().map(|&index| device.fixed + device.token * pieces[index] as f64).sum();
        budget.took(pieces.iter().sum(), Duration::from_secs_f64(seconds));
        times.push(seconds);
        for &index in &begun {
            unread[index] -= pieces[index];
            if unread[index] == 0 {
                complete[index] = times.len();
            }
        }
    }
    (times, complete)
}

#[test]
fn prompts_are_read_in_order_and_rounds_wait_for_a_turn_at_most() {
    for token in [1e-6, 1e-4, 5e-3, 0.02] {
        let device = Device { token, fixed: 0.01 };
        let mut budget = PromptBudget::new();
        read(&mut budget, &device, &[4000]);
        let (times, complete) = read(&mut budget, &device, &[3000, 1, 40, 700, 5, 5, 5, 2000]);
        assert!(complete.is_sorted(), "{complete:?}");
        // As many tokens as this device reads in that time, but for the fewest of a turn.
        let longest = times.iter().copied().fold(0.0, f64::max);
        assert!(longest < 0.4_f64.max(32.0 * token + 0.1), "{longest} s at {token} s a token");
    }
}

#[test]
fn short_prompts_share_a_turn_and_a_fast_device_reads_more_of_them() {
    let device = Device { token: 1e-5, fixed: 1e-3 };
    let mut budget = PromptBudget::new();
    let (_, first) = read(&mut budget, &device, &[50; 16]);
    assert!(first[0] == 1 && first[1] == 2, "the device is unknown at first: {first:?}");
    let (times, later) = read(&mut budget, &device, &[50; 16]);
    assert_eq!((times.len(), later[15]), (1, 1));
    // Pieces of a token say nothing against it.
    for _ in 0..100 {
        read(&mut budget, &device, &[1]);
    }
    assert_eq!(read(&mut budget, &device, &[50; 16]).0.len(), 1);
    // One that has become slow gets less to do at once.
    let slow = Device { token: 0.01, fixed: 0.1 };
    read(&mut budget, &slow, &[500]);
    assert!(read(&mut budget, &slow, &[50; 2]).0.iter().all(|&time| time < 0.6));
}

#[test]
fn a_prompt_that_does_not_fit_beside_others_comes_next_and_whole_turns_are_its_own() {
    let mut budget = PromptBudget::new();
    // 64 tokens a turn on a device that needs all of a turn's time for them.
    let turn = Duration::from_millis(250);
    let mut pieces = |unread: &[usize]| {
        let pieces = budget.pieces(unread);
        budget.took(pieces.iter().sum(), turn.mul_f64(pieces.iter().sum::<usize>() as f64 / 64.0));
        pieces
    };
    assert_eq!(pieces(&[10, 100, 5]), [10, 0, 0]);
    assert_eq!(pieces(&[0, 100, 5]), [0, 64, 0]);
    assert_eq!(pieces(&[0, 36, 5]), [0, 36, 5]);
    assert_eq!(pieces(&[0, 0, 0]), [0, 0, 0]);
}
