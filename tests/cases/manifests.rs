//! What is deployed: whether the API server takes it as it is written, and whether it says what it should.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{KEYS, variable};
use serde_json::Value;
use tests::{Apiserver, Lab, Options, Place as _, TestResult, can_run_labs, say_skipped};

use crate::pair;

/// The components that say where etcd is; the manifests as they are contain one of them.
const ETCDS: [&str; 3] = ["components/etcd", "components/own-etcd", "components/node-certificates"];

/// The path of kubectl; none if nobody has built it.
fn kubectl() -> Option<PathBuf> {
    let found = Apiserver::program().and_then(|program| Some(program.parent()?.join("kubectl")));
    let found = found.filter(|program| program.exists());
    if found.is_none() {
        say_skipped(&"there is no kubectl (tests/kubernetes/build.sh)");
    }
    found
}

/// The folder of the manifests.
fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Copies the manifests with another etcd in them, as an operator who has an etcd does it.
fn with_etcd(test: &str, etcd: &str) -> Result<PathBuf, Box<dyn Error>> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test).join(etcd.replace('/', "-"));
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    copy(&manifests(), &place)?;
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        fs::write(place.join("components/own-etcd").join(name), name)?;
    }
    let file = place.join("kustomization.yaml");
    let text = fs::read_to_string(&file)?;
    let chosen = "components: [components/etcd]";
    assert!(text.contains(chosen), "{text}");
    fs::write(file, text.replace(chosen, &format!("components: [{etcd}]")))?;
    Ok(place)
}

fn copy(from: &Path, to: &Path) -> TestResult {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// All objects that kustomize makes of a folder.
fn objects(kubectl: &Path, folder: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_saphyr::from_multiple(&String::from_utf8(output.stdout)?)?)
}

/// All containers, including init containers, each with the object that it is in.
fn containers(objects: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    objects.iter().flat_map(|object| {
        let kind = object.pointer("/kind").and_then(Value::as_str).unwrap_or_default();
        let lists = ["/spec/template/spec/initContainers", "/spec/template/spec/containers"];
        let lists = lists.into_iter().filter_map(|list| object.pointer(list)?.as_array());
        lists.flatten().map(move |container| (kind, container))
    })
}

#[test]
fn the_api_server_takes_every_manifest_with_whatever_etcd() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let Some(kubectl) = kubectl() else { return Ok(()) };
    let test = "manifests";
    let lab = Lab::up(&pair(test, "")?, &Options::unique(test).without_agents())?;
    let node = lab.node("node1");
    let kubeconfig = Apiserver::start(lab.node("etcd"))?.introduce(node)?;
    let apply = |words: &[&str]| {
        let kubectl = kubectl.display().to_string();
        let mut line = vec!["env", "HOME=/run", &kubectl, "--kubeconfig", kubeconfig, "apply"];
        line.extend(words);
        node.exec(&line)
    };
    for etcd in ETCDS {
        let folder = with_etcd(test, etcd)?;
        let path = |below: &str| folder.join(below).display().to_string();
        // The API server takes an object in a namespace only if the namespace exists.
        apply(&["-f", &path("base/namespace.yaml")])?;
        let said = apply(&["--dry-run=server", "--validate=strict", "-k", &path("")])?;
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        assert_eq!(taken, objects(&kubectl, &folder)?.len(), "{etcd}: {said}");
        // Now everything is applied for real, and twice: it is applied again at every upgrade.
        apply(&["-k", &path("")])?;
        let said = apply(&["-k", &path("")])?;
        assert!(said.lines().all(|line| line.ends_with("unchanged")), "{etcd}: {said}");
    }
    // These objects remove it all, with the data of the etcd for trying out and without.
    let text = fs::read_to_string(manifests().join("clean/kustomization.yaml"))?;
    for (name, text) in [("clean", text.clone()), ("clean-etcd-data", text.replace("# components:", "components:"))] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test).join(name);
        copy(&manifests().join("clean"), &folder)?;
        fs::write(folder.join("kustomization.yaml"), text)?;
        let path = folder.display().to_string();
        apply(&["-f", &format!("{path}/namespace.yaml")])?;
        let said = apply(&["--dry-run=server", "--validate=strict", "-k", &path])?;
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        assert_eq!(taken, 2, "{name}: {said}");
        let objects = objects(&kubectl, &folder)?;
        let removes = |flag: &str| {
            let words = containers(&objects).filter_map(|(_, container)| container.pointer("/command")?.as_array());
            words.flatten().any(|word| word == flag)
        };
        assert_eq!(removes("--etcd-data"), name == "clean-etcd-data");
    }
    lab.down()?;
    Ok(())
}

#[test]
fn all_images_of_ours_are_of_this_version() -> TestResult {
    let Some(kubectl) = kubectl() else { return Ok(()) };
    let wanted = format!("docker.io/manx/agent:v{}", env!("CARGO_PKG_VERSION"));
    let cleaning = objects(&kubectl, &manifests().join("clean"))?;
    let objects = objects(&kubectl, &with_etcd("manifests-images", ETCDS[0])?)?;
    let mut ours = 0;
    for (kind, container) in containers(&objects).chain(containers(&cleaning)) {
        let image = container.pointer("/image").and_then(Value::as_str).unwrap_or_default();
        if image.contains("manx/agent") {
            assert_eq!(image, wanted, "{kind}");
            ours += 1;
        }
    }
    // The containers are the agent, the one that installs it and the one that makes certificates; then the one that
    // cleans and the one that says so.
    assert_eq!(ours, 3 + 2);
    // Otherwise a Job of the version before could not be changed into this one.
    let job = objects.iter().find(|object| object.pointer("/kind").is_some_and(|kind| kind == "Job"));
    let name = job.and_then(|job| job.pointer("/metadata/name")?.as_str()).ok_or("there is no Job")?;
    assert!(name.ends_with(&format!("-v{}", env!("CARGO_PKG_VERSION").replace('.', "-"))), "{name}");
    Ok(())
}

#[test]
fn only_what_installs_is_privileged_and_the_rest_has_no_capability_beyond_those_it_needs() -> TestResult {
    let Some(kubectl) = kubectl() else { return Ok(()) };
    for etcd in ETCDS {
        let objects = objects(&kubectl, &with_etcd("manifests-rights", etcd)?)?;
        for (kind, container) in containers(&objects) {
            let name = container.pointer("/name").and_then(Value::as_str).unwrap_or_default();
            let rights =
                container.pointer("/securityContext").ok_or_else(|| format!("{name} says nothing of rights"))?;
            let says = |pointer: &str| rights.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(says("/readOnlyRootFilesystem"), true, "{name}");
            if name == "install" {
                assert_eq!((kind, says("/privileged")), ("DaemonSet", true.into()));
                continue;
            }
            assert_eq!(says("/privileged"), Value::Null, "{name}");
            assert_eq!(says("/allowPrivilegeEscalation"), false, "{name}");
            assert_eq!(says("/capabilities/drop/0"), "ALL", "{name}");
            assert_eq!(says("/seccompProfile/type"), "RuntimeDefault", "{name}");
            let added = says("/capabilities/add");
            let agent = serde_json::json!(["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]);
            assert_eq!(added, if name == "agent" { agent } else { Value::Null }, "{name}");
        }
    }
    Ok(())
}

#[test]
fn every_setting_is_one_that_the_agent_knows() -> TestResult {
    let Some(kubectl) = kubectl() else { return Ok(()) };
    // The agent ignores a variable that it does not know.
    let known: Vec<String> = KEYS.iter().map(|key| variable(key)).chain(["MANX_LOG".to_owned()]).collect();
    for etcd in ETCDS {
        let objects = objects(&kubectl, &with_etcd("manifests-settings", etcd)?)?;
        let maps = objects.iter().filter(|object| object.pointer("/kind").is_some_and(|kind| kind == "ConfigMap"));
        let maps = maps.filter_map(|map| map.pointer("/data")?.as_object()).flat_map(|data| data.keys());
        let variables =
            containers(&objects).filter(|(_, container)| container.pointer("/name") == Some(&"agent".into()));
        let variables = variables.filter_map(|(_, container)| container.pointer("/env")?.as_array()).flatten();
        let variables = variables.filter_map(|variable| variable.pointer("/name")?.as_str());
        let set: Vec<&str> = maps.map(String::as_str).chain(variables).collect();
        for name in &set {
            assert!(known.iter().any(|known| known == name), "{etcd}: {name} is no setting");
        }
        for needed in ["MANX_ETCD_ENDPOINTS", "MANX_ETCD_CA", "MANX_NODE_NAME", "MANX_KUBERNETES"] {
            assert!(set.contains(&needed), "{etcd}: {needed} is not set");
        }
    }
    Ok(())
}
