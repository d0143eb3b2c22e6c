//! The built-in policy: the rules of [`rpc::policy`], compiled.
use internaltls::Policy;
use internaltls::policy::PolicyError;

/// Who may call what, when no policy file says otherwise.
///
/// # Errors
/// None, as a test shows; the type is that of any policy.
pub fn built_in() -> Result<Policy, PolicyError> {
    Policy::from_rules(rpc::policy::RULES)
}

#[cfg(test)]
mod tests {
    use internaltls::identity::{Identity, NodeId, Role, TrustDomain};

    use super::*;

    const SHIPPED: &str = include_str!("../../../config/policy.yaml");

    fn callers() -> Vec<Identity> {
        let node = |role: &str| Identity::Node {
            trust_domain: TrustDomain::new("mesh.internal").unwrap(),
            role: Role::new(role).unwrap(),
            node: NodeId::new("one").unwrap(),
        };
        let roles = ["proxy", "coordinator", "data-node", "operator", "metrics", "stranger"];
        roles.map(node).into_iter().chain([Identity::Shared, Identity::Plaintext]).collect()
    }

    #[test]
    fn built_in_policy_compiles() {
        assert!(built_in().is_ok());
    }

    #[test]
    fn shipped_file_is_the_built_in_policy() {
        let (shipped, built_in) = (Policy::parse(SHIPPED).unwrap(), built_in().unwrap());
        for caller in callers() {
            for (_, rule) in rpc::policy::RULES {
                let method = rule.replace('*', "Anything");
                assert_eq!(shipped.allows(&caller, &method), built_in.allows(&caller, &method), "{caller} {method}");
            }
        }
        let lines = SHIPPED.lines().filter(|line| line.trim().starts_with("- ")).count();
        assert_eq!(lines, rpc::policy::RULES.len(), "no rule more and none less");
    }
}
