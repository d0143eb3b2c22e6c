//! Which role may call which method of the mesh's own services, when no policy file says otherwise.
//!
//! 1. Rules are data, `(caller, method)`: the method exact, or `/package.Service/*`. What is not named is refused.
//! 2. Callers are roles, or the identities of links that tell no role: `shared` (one leaf for all nodes) and
//!    `plaintext`. Those may call everything, because refusing them would stop the cluster: whoever turns them on is
//!    warned that roles cannot be told apart.

/// The built-in rules.
pub const RULES: [(&str, &str); 27] = [
    ("proxy", "/mesh.v1.Identity/WhoAmI"),
    ("proxy", "/mesh.v1.Coordinator/CreateCollection"),
    ("proxy", "/mesh.v1.Coordinator/DescribeCollection"),
    ("proxy", "/mesh.v1.Coordinator/ListCollections"),
    ("proxy", "/mesh.v1.Coordinator/DropCollection"),
    ("proxy", "/mesh.v1.Coordinator/CreateIndex"),
    ("proxy", "/mesh.v1.Coordinator/DropIndex"),
    ("proxy", "/mesh.v1.Coordinator/SetLoaded"),
    ("proxy", "/mesh.v1.DataNode/Insert"),
    ("proxy", "/mesh.v1.DataNode/Get"),
    ("proxy", "/mesh.v1.DataNode/Search"),
    ("proxy", "/mesh.v1.DataNode/Count"),
    ("proxy", "/mesh.v1.DataNode/Flush"),
    ("coordinator", "/mesh.v1.Identity/WhoAmI"),
    ("coordinator", "/mesh.v1.DataNode/OpenShard"),
    ("coordinator", "/mesh.v1.DataNode/DropShard"),
    ("data-node", "/mesh.v1.Identity/WhoAmI"),
    ("data-node", "/mesh.v1.Coordinator/Assignments"),
    ("data-node", "/mesh.v1.Coordinator/ShardsDropped"),
    ("operator", "/mesh.v1.Identity/WhoAmI"),
    ("metrics", "/mesh.v1.Identity/WhoAmI"),
    ("shared", "/mesh.v1.Identity/*"),
    ("shared", "/mesh.v1.Coordinator/*"),
    ("shared", "/mesh.v1.DataNode/*"),
    ("plaintext", "/mesh.v1.Identity/*"),
    ("plaintext", "/mesh.v1.Coordinator/*"),
    ("plaintext", "/mesh.v1.DataNode/*"),
];

#[cfg(test)]
mod tests {
    use super::RULES;

    /// Every method of our services, as the generated code names them.
    const SERVICES: [(&str, &[&str]); 3] = [
        ("mesh.v1.Identity", &["WhoAmI"]),
        (
            "mesh.v1.Coordinator",
            &[
                "CreateCollection",
                "DescribeCollection",
                "ListCollections",
                "DropCollection",
                "CreateIndex",
                "DropIndex",
                "SetLoaded",
                "Assignments",
                "ShardsDropped",
            ],
        ),
        ("mesh.v1.DataNode", &["OpenShard", "DropShard", "Insert", "Get", "Search", "Count", "Flush"]),
    ];

    const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/mesh.v1.rs"));

    fn methods() -> Vec<String> {
        SERVICES.iter().flat_map(|(service, names)| names.iter().map(move |n| format!("/{service}/{n}"))).collect()
    }

    fn callers(method: &str) -> Vec<&'static str> {
        RULES.iter().filter(|(_, rule)| *rule == method).map(|(caller, _)| *caller).collect()
    }

    #[test]
    fn rules_name_methods_that_exist() {
        for (_, rule) in RULES.iter().filter(|(_, rule)| !rule.ends_with("/*")) {
            assert!(GENERATED.contains(&format!("\"{rule}\"")), "{rule} is no method");
            assert!(methods().contains(&(*rule).to_owned()), "{rule} is not in the list above");
        }
    }

    #[test]
    fn every_method_has_one_calling_role() {
        for method in methods().iter().filter(|m| !m.contains("Identity")) {
            assert_eq!(callers(method).len(), 1, "{method}: {:?}", callers(method));
        }
    }

    #[test]
    fn roles_have_no_wildcards() {
        let wild: Vec<_> = RULES.iter().filter(|(_, r)| r.ends_with('*')).map(|(c, _)| *c).collect();
        assert!(wild.iter().all(|c| matches!(*c, "shared" | "plaintext")), "{wild:?}");
    }
}
