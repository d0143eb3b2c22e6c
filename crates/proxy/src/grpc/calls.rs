//! The table of calls. One line a call: its name, what it takes, what it answers.
use std::sync::Arc;

use rpc::common::Status;
use rpc::milvus::milvus_service_server::MilvusService;
use rpc::milvus::*;
use tonic::{Request, Response};

use super::{database, status};
use crate::error::{Error, Result};
use crate::service::Service;

/// The calls, over the service.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    service: Arc<Service>,
}

impl Calls {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

/// An answer that can carry a refusal.
trait Answer: Default {
    fn refused(status: Status) -> Self;
}

impl Answer for Status {
    fn refused(status: Status) -> Self {
        status
    }
}

macro_rules! answers {
    ($($answer:ident),* $(,)?) => {
        $(impl Answer for $answer {
            fn refused(status: Status) -> Self {
                Self { status: Some(status), ..Default::default() }
            }
        })*
    };
}

fn told<T: Answer>(outcome: Result<T>) -> std::result::Result<Response<T>, tonic::Status> {
    match outcome {
        Ok(answer) => Ok(Response::new(answer)),
        Err(Error::Refused(refusal)) => Ok(Response::new(T::refused(refusal.status()))),
        Err(error) => Err(status(&error)),
    }
}

/// A call as the API names it: `rename_collection` is `RenameCollection`.
fn named(function: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    function.split('_').map(capital).collect()
}

/// A request with the database it is about.
macro_rules! in_database {
    ($request:ident) => {{
        let header = database($request.metadata());
        let mut inner = $request.into_inner();
        if inner.db_name.is_empty() {
            inner.db_name = header;
        }
        inner
    }};
}

macro_rules! milvus_calls {
    (
        at_once { $($at_once:ident($at_once_in:ty) -> $at_once_out:ty;)* }
        of_a_database_at_once { $($known:ident($known_in:ty) -> $known_out:ty;)* }
        of_the_cluster { $($asked:ident($asked_in:ty) -> $asked_out:ty;)* }
        of_a_database { $($built:ident($built_in:ty) -> $built_out:ty;)* }
        not_built { $($unbuilt:ident($unbuilt_in:ty) -> $unbuilt_out:ty;)* }
    ) => {
        #[tonic::async_trait]
        impl MilvusService for Calls {
            $(async fn $at_once(&self, request: Request<$at_once_in>) -> std::result::Result<Response<$at_once_out>, tonic::Status> {
                told(self.service.$at_once(request.into_inner()))
            })*
            $(async fn $known(&self, request: Request<$known_in>) -> std::result::Result<Response<$known_out>, tonic::Status> {
                told(self.service.$known(in_database!(request)))
            })*
            $(async fn $asked(&self, request: Request<$asked_in>) -> std::result::Result<Response<$asked_out>, tonic::Status> {
                told(self.service.$asked(request.into_inner()).await)
            })*
            $(async fn $built(&self, request: Request<$built_in>) -> std::result::Result<Response<$built_out>, tonic::Status> {
                told(self.service.$built(in_database!(request)).await)
            })*
            $(async fn $unbuilt(&self, _: Request<$unbuilt_in>) -> std::result::Result<Response<$unbuilt_out>, tonic::Status> {
                Err(status(&Error::unbuilt(named(stringify!($unbuilt)))))
            })*
        }
    };
}

answers! {
    AllocTimestampResponse,
    BoolResponse,
    CheckHealthResponse,
    ConnectResponse,
    DescribeCollectionResponse,
    DescribeDatabaseResponse,
    DescribeIndexResponse,
    FlushResponse,
    GetCollectionStatisticsResponse,
    GetFlushStateResponse,
    GetLoadStateResponse,
    GetLoadingProgressResponse,
    GetVersionResponse,
    ListDatabasesResponse,
    MutationResult,
    QueryResults,
    SearchResults,
    ShowCollectionsResponse,
}

milvus_calls! {
    at_once {
        connect(ConnectRequest) -> ConnectResponse;
        get_version(GetVersionRequest) -> GetVersionResponse;
        alloc_timestamp(AllocTimestampRequest) -> AllocTimestampResponse;
        list_databases(ListDatabasesRequest) -> ListDatabasesResponse;
    }
    of_a_database_at_once {
        get_flush_state(GetFlushStateRequest) -> GetFlushStateResponse;
        describe_database(DescribeDatabaseRequest) -> DescribeDatabaseResponse;
    }
    of_the_cluster {
        check_health(CheckHealthRequest) -> CheckHealthResponse;
    }
    of_a_database {
        create_collection(CreateCollectionRequest) -> Status;
        describe_collection(DescribeCollectionRequest) -> DescribeCollectionResponse;
        show_collections(ShowCollectionsRequest) -> ShowCollectionsResponse;
        has_collection(HasCollectionRequest) -> BoolResponse;
        drop_collection(DropCollectionRequest) -> Status;
        create_index(CreateIndexRequest) -> Status;
        describe_index(DescribeIndexRequest) -> DescribeIndexResponse;
        drop_index(DropIndexRequest) -> Status;
        load_collection(LoadCollectionRequest) -> Status;
        release_collection(ReleaseCollectionRequest) -> Status;
        get_load_state(GetLoadStateRequest) -> GetLoadStateResponse;
        get_loading_progress(GetLoadingProgressRequest) -> GetLoadingProgressResponse;
        insert(InsertRequest) -> MutationResult;
        search(SearchRequest) -> SearchResults;
        query(QueryRequest) -> QueryResults;
        flush(FlushRequest) -> FlushResponse;
        get_collection_statistics(GetCollectionStatisticsRequest) -> GetCollectionStatisticsResponse;
    }
    not_built {
        rename_collection(RenameCollectionRequest) -> Status;
        truncate_collection(TruncateCollectionRequest) -> TruncateCollectionResponse;
        alter_collection(AlterCollectionRequest) -> Status;
        alter_collection_field(AlterCollectionFieldRequest) -> Status;
        add_collection_field(AddCollectionFieldRequest) -> Status;
        alter_collection_schema(AlterCollectionSchemaRequest) -> AlterCollectionSchemaResponse;
        alter_index(AlterIndexRequest) -> Status;
        upsert(UpsertRequest) -> MutationResult;
        delete(DeleteRequest) -> MutationResult;
        hybrid_search(HybridSearchRequest) -> SearchResults;
        flush_all(FlushAllRequest) -> FlushAllResponse;
        get_flush_all_state(GetFlushAllStateRequest) -> GetFlushAllStateResponse;
        get_partition_statistics(GetPartitionStatisticsRequest) -> GetPartitionStatisticsResponse;
        manual_compaction(ManualCompactionRequest) -> ManualCompactionResponse;
        get_compaction_state(GetCompactionStateRequest) -> GetCompactionStateResponse;
        create_partition(CreatePartitionRequest) -> Status;
        drop_partition(DropPartitionRequest) -> Status;
        has_partition(HasPartitionRequest) -> BoolResponse;
        show_partitions(ShowPartitionsRequest) -> ShowPartitionsResponse;
        load_partitions(LoadPartitionsRequest) -> Status;
        release_partitions(ReleasePartitionsRequest) -> Status;
        create_alias(CreateAliasRequest) -> Status;
        drop_alias(DropAliasRequest) -> Status;
        alter_alias(AlterAliasRequest) -> Status;
        describe_alias(DescribeAliasRequest) -> DescribeAliasResponse;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        create_database(CreateDatabaseRequest) -> Status;
        drop_database(DropDatabaseRequest) -> Status;
        alter_database(AlterDatabaseRequest) -> Status;
        create_credential(CreateCredentialRequest) -> Status;
        update_credential(UpdateCredentialRequest) -> Status;
        delete_credential(DeleteCredentialRequest) -> Status;
        list_cred_users(ListCredUsersRequest) -> ListCredUsersResponse;
        select_user(SelectUserRequest) -> SelectUserResponse;
        create_role(CreateRoleRequest) -> Status;
        alter_role(AlterRoleRequest) -> Status;
        drop_role(DropRoleRequest) -> Status;
        select_role(SelectRoleRequest) -> SelectRoleResponse;
        operate_user_role(OperateUserRoleRequest) -> Status;
        select_grant(SelectGrantRequest) -> SelectGrantResponse;
        operate_privilege(OperatePrivilegeRequest) -> Status;
        operate_privilege_v2(OperatePrivilegeV2Request) -> Status;
        create_privilege_group(CreatePrivilegeGroupRequest) -> Status;
        drop_privilege_group(DropPrivilegeGroupRequest) -> Status;
        list_privilege_groups(ListPrivilegeGroupsRequest) -> ListPrivilegeGroupsResponse;
        operate_privilege_group(OperatePrivilegeGroupRequest) -> Status;
    }
}
