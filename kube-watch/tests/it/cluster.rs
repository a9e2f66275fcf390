//! What an administrator does to a cluster.

use std::path::Path;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config, Error};
use serde_json::{Value, json};

/// A cluster, as its administrator has it.
pub(crate) struct TestedCluster {
    client: Client,
}

impl TestedCluster {
    /// Through a kubeconfig.
    pub(crate) async fn of(kubeconfig: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap() }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.text("/readyz").await.is_ok_and(|answer| answer == "ok")
    }

    /// Whether it knows who asks.
    pub(crate) async fn knows_us(&self) -> bool {
        let answer = self.text("/api/v1/nodes/none").await;
        !matches!(answer, Err(Error::Api(status)) if status.code == 401)
    }

    pub(crate) async fn create(&self, path: &str, object: Value) -> Value {
        let request = Request::new(path).create(&PostParams::default(), object.to_string().into_bytes()).unwrap();
        self.client.request(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await.unwrap()).unwrap()
    }

    pub(crate) async fn patch(&self, path: &str, patch: Value) {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let request = Request::new(folder).patch(name, &PatchParams::default(), &Patch::Merge(patch)).unwrap();
        let _: Value = self.client.request(request).await.unwrap();
    }

    /// Deletes at once: no kubelet has to agree.
    pub(crate) async fn delete(&self, path: &str) {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let request = Request::new(folder).delete(name, &DeleteParams::default().grace_period(0)).unwrap();
        self.client.request_text(request).await.unwrap();
    }

    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        self.create("/api/v1/namespaces", json!({ "metadata": { "name": name, "labels": labels } })).await;
    }

    pub(crate) async fn policy(&self, namespace: &str, name: &str, spec: Value) {
        self.create(&policies(namespace), json!({ "metadata": { "name": name }, "spec": spec })).await;
    }

    /// A pod, bound to a node where one is named; gives its UID.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, node: Option<&str>) -> String {
        let container = json!({
            "name": "web", "image": "web", "ports": [{ "name": "http", "containerPort": 80 }],
        });
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "nodeName": node, "containers": [container] },
        });
        let pod = self.create(&pods(namespace), pod).await;
        pod["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// A service account that may read what is watched, if `allowed`.
    pub(crate) async fn service_account(&self, namespace: &str, name: &str, allowed: bool) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.create(&path, json!({ "metadata": { "name": name } })).await;
        if allowed {
            self.allow(namespace, name).await;
        }
    }

    /// Lets a service account read what is watched, and nothing else.
    pub(crate) async fn allow(&self, namespace: &str, account: &str) {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let role = json!({
            "metadata": { "name": account },
            "rules": [
                { "apiGroups": [""], "resources": ["namespaces", "pods", "nodes"], "verbs": ["list", "watch"] },
                { "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"] },
            ],
        });
        self.create(&format!("{rbac}/clusterroles"), role).await;
        let binding = json!({
            "metadata": { "name": account },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": account }],
        });
        self.create(&format!("{rbac}/clusterrolebindings"), binding).await;
    }

    /// A token of a service account, which holds until the Secret that it is bound to is deleted.
    pub(crate) async fn token(&self, namespace: &str, account: &str, secret: &str) -> String {
        let made = self
            .create(&format!("/api/v1/namespaces/{namespace}/secrets"), json!({ "metadata": { "name": secret } }))
            .await;
        let bound = json!({ "apiVersion": "v1", "kind": "Secret", "name": secret, "uid": made["metadata"]["uid"] });
        let request = json!({ "spec": { "audiences": null, "boundObjectRef": bound } });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let token = self.create(&path, request).await;
        token["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn text(&self, path: &str) -> Result<String, Error> {
        // `Request` writes paths of objects; the part behind the last slash is the name of one.
        let (folder, name) = path.rsplit_once('/').unwrap();
        let request = Request::new(folder).get(name, &kube::api::GetParams::default()).unwrap();
        self.client.request_text(request).await
    }
}

pub(crate) fn policies(namespace: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
}

pub(crate) fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}
