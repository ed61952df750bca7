//! The verdict of one speculative round, greedy.

/// The tokens a round commits: the target's choices up to and including the first that the draft did not foresee.
///
/// **Shapes**: `proposal` d₁..d_K, `choices` t₀..t_K; with m the length of the longest prefix in which
/// `t[i] == d[i + 1]`, the result is t₀..t_m.
/// **Source**: An et al., PARD, arXiv:2504.18583; Leviathan et al. 2023, arXiv:2211.17192, at temperature 0.
pub fn accept(proposal: &[u32], choices: &[u32]) -> Vec<u32> {
    assert_eq!(choices.len(), proposal.len() + 1, "the target chooses once more than the draft proposes");
    let accepted = proposal.iter().zip(choices).take_while(|(drafted, chosen)| drafted == chosen).count();
    choices[..=accepted].to_vec()
}
