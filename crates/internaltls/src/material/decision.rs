//! Whether a candidate that passed every check of its own is published, now that its peers have been heard. Pure.
//!
//! 1. Nobody against it: it is published.
//! 2. An operator on this host named this very content: it is published, whatever peers say.
//! 3. A live peer would refuse the new leaf, or may do so, and the bundle beside it only adds CAs: the bundle alone is published,
//!    over the leaf in use. Nodes that all have such a set on disk would else wait for one another for ever.
//! 4. Else it is held back: what is served stays.

/// Who stands against a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objection {
    /// A peer that is connected now would be refused.
    Orphan,
    /// A live peer would refuse us.
    Trial,
    /// One that cannot be asked has shown nothing to tell that it would accept us.
    Unheard,
}

/// What is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) objection: Option<Objection>,
    /// An operator named its content.
    pub(super) forced: bool,
    /// Its CAs are those in use and more.
    pub(super) adds_cas: bool,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Publish,
    /// Although somebody stands against it.
    PublishByForce,
    /// The rest is held back.
    PublishBundle,
    Hold,
}

pub(super) fn decide(case: Case) -> Decision {
    match case.objection {
        None => Decision::Publish,
        Some(_) if case.forced => Decision::PublishByForce,
        Some(Objection::Trial | Objection::Unheard) if case.adds_cas => Decision::PublishBundle,
        Some(_) => Decision::Hold,
    }
}

/// Whether every one of `before` is among `after`, and another one as well.
pub(super) fn adds<T: PartialEq>(before: &[T], after: &[T]) -> bool {
    before.iter().all(|one| after.contains(one)) && after.iter().any(|one| !before.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cases() -> impl Strategy<Value = Case> {
        let objection = prop_oneof![
            Just(None),
            Just(Some(Objection::Orphan)),
            Just(Some(Objection::Trial)),
            Just(Some(Objection::Unheard))
        ];
        (objection, any::<bool>(), any::<bool>()).prop_map(|(objection, forced, adds_cas)| Case {
            objection,
            forced,
            adds_cas,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn invariant_3_who_objects_is_overruled_by_force_alone(case in cases()) {
            let whole = matches!(decide(case), Decision::Publish | Decision::PublishByForce);
            prop_assert_eq!(whole, case.objection.is_none() || case.forced);
        }

        #[test]
        fn force_is_not_used_up_where_nobody_objects(case in cases()) {
            prop_assert!(case.objection.is_some() || decide(case) != Decision::PublishByForce);
        }

        /// Nobody who is connected loses anything by it: the CAs that vouch for them stay, and so does our leaf.
        #[test]
        fn a_bundle_goes_ahead_only_where_it_adds(case in cases()) {
            if decide(case) == Decision::PublishBundle {
                prop_assert!(case.adds_cas && matches!(case.objection, Some(Objection::Trial | Objection::Unheard)));
            }
        }

        #[test]
        fn what_adds_has_all_and_more(before in proptest::collection::vec(0..6_u8, 0..5), after in proptest::collection::vec(0..6_u8, 0..7)) {
            let has = |of: &[u8], one: u8| of.contains(&one);
            let expected = (0..6).all(|one| !has(&before, one) || has(&after, one)) && (0..6).any(|one| has(&after, one) && !has(&before, one));
            prop_assert_eq!(adds(&before, &after), expected);
        }
    }
}
