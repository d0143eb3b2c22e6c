//! mesh.v1.Identity: tells a caller who it is taken for.
use internaltls::PeerInfo;
use internaltls::identity::{NodeId, Role};
use rpc::mesh::identity_server::{Identity, IdentityServer};
use rpc::mesh::{WhoAmIReply, WhoAmIRequest};
use tonic::{Request, Response, Status};

/// Answers for one server.
#[derive(Debug, Clone)]
pub(crate) struct WhoAmI {
    role: Role,
    node: NodeId,
}

impl WhoAmI {
    pub(crate) fn service(role: Role, node: NodeId) -> IdentityServer<Self> {
        IdentityServer::new(Self { role, node })
    }
}

#[tonic::async_trait]
impl Identity for WhoAmI {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIReply>, Status> {
        let unnamed = || Status::internal("the call reached the service without its caller's identity");
        let peer = request.extensions().get::<PeerInfo>().ok_or_else(unnamed)?;
        Ok(Response::new(WhoAmIReply {
            caller: peer.identity().to_string(),
            server_role: self.role.to_string(),
            server_node: self.node.to_string(),
            server_generation: peer.generation(),
        }))
    }
}
