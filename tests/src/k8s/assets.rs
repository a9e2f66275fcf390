//! The Kubernetes components and what a cluster runs beside them, where `tests/kubernetes/build.sh` put them.

use std::path::{Path, PathBuf};

use crate::apiserver::Apiserver;
use crate::binaries::{Binaries, installed};
use crate::{LabError, can_run_labs, say_skipped};

/// The files that [`Assets`] must hold.
const PROGRAMS: [&str; 13] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "pause",
    "coredns",
    "agnhost",
    "loopback",
    "portmap",
    "ptp",
    "host-local",
];

/// The folder that holds them.
#[derive(Debug, Clone)]
pub(crate) struct Assets(PathBuf);

impl Assets {
    /// The folder of `KUBEBUILDER_ASSETS`, else the newest of the cache; all that a cluster needs is there.
    pub(crate) fn find() -> Result<Self, LabError> {
        let folder = Self::folder()?;
        for program in PROGRAMS {
            folder.there(program)?;
        }
        for (program, package) in
            [("containerd", "containerd"), ("runc", "runc"), ("ctr", "containerd"), ("busybox", "busybox-static")]
        {
            installed(program, package)?;
        }
        Ok(folder)
    }

    /// The path of one program, whether or not the others are there.
    pub(crate) fn one(name: &str) -> Result<PathBuf, LabError> {
        Self::folder()?.there(name)
    }

    fn folder() -> Result<Self, LabError> {
        let server = Apiserver::program().ok_or_else(|| missing("kube-apiserver"))?;
        Ok(Self(server.parent().unwrap_or_else(|| Path::new("/")).to_owned()))
    }

    fn there(&self, name: &str) -> Result<PathBuf, LabError> {
        let program = self.program(name);
        if program.exists() { Ok(program) } else { Err(missing(&program.display().to_string())) }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn missing(program: &str) -> LabError {
    LabError::Missing {
        program: program.to_owned(),
        hint: "build it with tests/kubernetes/build.sh, or set KUBEBUILDER_ASSETS to a folder that it filled"
            .to_owned(),
    }
}

/// Where built images are kept: `$CARGO_TARGET_DIR/images`, or beside the folder of this workspace's programs.
pub fn images_folder() -> Result<PathBuf, LabError> {
    Ok(target_folder()?.join("images"))
}

/// The build's folder, on a disk: what is large and can be made again is kept there.
pub(crate) fn target_folder() -> Result<PathBuf, LabError> {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(folder.into());
    }
    let programs = Binaries::find()?.folder;
    Ok(programs.parent().unwrap_or(&programs).to_owned())
}

/// Whether this machine can run a Kubernetes cluster. If not, says so on standard error, as [`can_run_labs`] does.
pub fn can_run_clusters() -> bool {
    can_run_labs() && Assets::find().map_err(|reason| say_skipped(&reason)).is_ok()
}
