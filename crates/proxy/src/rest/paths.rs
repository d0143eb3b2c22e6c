//! Every path that Milvus has, and what answers those that are built.
use super::failure::{Failure, Outcome};
use super::{Call, Data, collections, create, entities, indexes};
use crate::error::Error;

/// Paths of Milvus, by group. Those that [`route`] does not answer are known and not built.
const KNOWN: [(&str, &str); 17] = [
    ("aliases", "alter create describe drop list"),
    (
        "collections",
        "add_function alter_function alter_properties compact create describe drop drop_function drop_properties flush \
         get_compaction_state get_load_state get_stats has list load refresh_load release rename truncate",
    ),
    ("collections/fields", "add alter_properties"),
    ("collections/struct_fields", "add"),
    ("common", "run_analyzer"),
    ("databases", "alter alter_properties create describe drop drop_properties list"),
    ("entities", "advanced_search delete get hybrid_search insert query search upsert"),
    ("indexes", "alter_properties create describe drop drop_properties list"),
    ("jobs/external_collection", "describe list refresh"),
    ("jobs/import", "abort commit create describe get_progress list"),
    ("jobs/snapshot", "describe export list restore_external"),
    ("partitions", "create drop get_stats has list load release"),
    ("privilege_groups", "add_privileges_to_group create drop list remove_privileges_from_group"),
    ("resource_groups", "alter create describe drop list transfer_replica"),
    (
        "roles",
        "alter create describe drop grant_privilege grant_privilege_v2 list revoke_privilege revoke_privilege_v2",
    ),
    ("segments", "describe"),
    ("users", "create describe drop grant_role list revoke_role update_password"),
];

/// The last parts of paths of calls that change nothing. What is not named here changes something.
const READS: &str = "describe get get_compaction_state get_load_state get_progress get_stats has hybrid_search list \
                     query search advanced_search run_analyzer";

/// Whether a call of this path leaves everything as it is.
pub(super) fn only_reads(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(_, call)| READS.split_whitespace().any(|name| name == call))
}

/// Whether Milvus has this path.
pub(super) fn is_known(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(group, call)| {
        KNOWN.iter().any(|(known, calls)| *known == group && calls.split_whitespace().any(|name| name == call))
    })
}

/// Carries a call out.
pub(super) async fn route(path: &str, call: &Call<'_>) -> Outcome<Data> {
    match path {
        "collections/list" => collections::list(call).await.map(Data::Only),
        "collections/has" => collections::has(call).await.map(Data::Only),
        "collections/describe" => collections::describe(call).await.map(Data::Only),
        "collections/get_stats" => collections::get_stats(call).await.map(Data::Only),
        "collections/get_load_state" => collections::get_load_state(call).await.map(Data::Only),
        "collections/create" => create::create(call).await.map(Data::Only),
        "collections/drop" => collections::drop(call).await.map(Data::Only),
        "collections/load" => collections::load(call).await.map(Data::Only),
        "collections/release" => collections::release(call).await.map(Data::Only),
        "collections/flush" => collections::flush(call).await.map(Data::Only),
        "databases/list" => collections::databases(call).map(Data::Only),
        "entities/insert" => entities::insert(call).await.map(Data::Only),
        "entities/get" => entities::get(call).await.map(Data::Only),
        "entities/query" => entities::query(call).await.map(Data::Only),
        "entities/search" => entities::search(call).await.map(Data::With),
        "indexes/list" => indexes::list(call).await.map(Data::Only),
        "indexes/describe" => indexes::describe(call).await.map(Data::Only),
        "indexes/create" => indexes::create(call).await.map(Data::Only),
        "indexes/drop" => indexes::drop(call).await.map(Data::Only),
        _ => Err(Failure::Api(Error::unbuilt(format_args!("{}{path}", super::ROOT)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By name, so that a call that is new among `KNOWN` counts as one that changes something until it is named here.
    #[test]
    fn reads_are_named_one_by_one() {
        let all = KNOWN.iter().flat_map(|(group, calls)| calls.split_whitespace().map(move |c| format!("{group}/{c}")));
        let (reads, changes): (Vec<String>, Vec<String>) = all.partition(|path| only_reads(path));
        assert_eq!((reads.len(), changes.len()), (36, 62), "{reads:?}\n{changes:?}");
        let verbs =
            ["add", "alter", "create", "drop", "insert", "upsert", "delete", "load", "release", "flush", "rename"];
        let verbs = verbs.into_iter().chain(["grant", "revoke", "truncate", "update", "restore", "compact", "refresh"]);
        for verb in verbs {
            let called = |path: &&String| path.rsplit('/').next().is_some_and(|call| call.starts_with(verb));
            assert_eq!(reads.iter().find(called), None, "{verb}");
        }
    }

    #[test]
    fn knows_the_paths_of_milvus() {
        for path in ["collections/list", "collections/fields/add", "entities/upsert", "users/list"] {
            assert!(is_known(path), "{path}");
        }
        for path in ["", "collections", "collections/nope", "list", "collections/", "entities/list"] {
            assert!(!is_known(path), "{path}");
        }
    }
}
