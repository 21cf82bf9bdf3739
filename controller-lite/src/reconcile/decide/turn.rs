//! Whose turn it is. Pure.

/// A VM that wants a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// It has a pod, or a VM that is not handed over.
    pub active: bool,
    /// It has a place only if it can use one.
    pub waits: bool,
    /// Host of the source.
    pub host: Option<String>,
}

/// Whose turn it is: those who are at work, then the others in the Plan's order, at most `vms` in
/// all and `per_host` from one host.
pub fn admit(candidates: &[Candidate], vms: usize, per_host: usize) -> Vec<bool> {
    let mut places = vec![false; candidates.len()];
    for active in [true, false] {
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.active != active || !(candidate.active || candidate.waits) {
                continue;
            }
            let taken = || candidates.iter().zip(&places).filter(|(_, has)| **has);
            let same = taken().filter(|(c, _)| c.host.is_some() && c.host == candidate.host);
            places[index] = active || (taken().count() < vms && same.count() < per_host);
        }
    }
    places
}
