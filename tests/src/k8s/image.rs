//! Container images without a registry: a static program, or one with its libraries, as the only layer of an archive in
//! the format of `docker save`, which containerd imports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::assets::{Assets, images_folder};
use crate::LabError;
use crate::binaries::installed;

/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
/// The image of the cluster's DNS.
pub const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.14.2";
/// The image of the client and server of Kubernetes' own tests.
pub const AGNHOST_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The image that has the usual commands and nothing else, as Debian has them.
pub const BUSYBOX_IMAGE: &str = "docker.io/library/busybox:1.35";
/// The image of etcd, as Debian has it.
pub const ETCD_IMAGE: &str = "quay.io/coreos/etcd:v3.4.23";

/// An image of one layer.
struct Image {
    /// The image's name and tag.
    name: &'static str,
    /// The files in the image, by their absolute path; the value is the file on the host.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Symbolic links to one of the files.
    links: Option<(&'static str, &'static [&'static str])>,
    /// The program that the image always runs, with a container's arguments.
    entrypoint: &'static [&'static str],
    /// The program that the image runs unless a container has arguments of its own.
    arguments: &'static [&'static str],
}

/// The commands that people and tests look for in a container, all of which are one program. It resolves no names (a
/// static program cannot ask the C library's resolver); `agnhost connect` does.
const BUSYBOX: (&str, &[&str]) = (
    "/bin/busybox",
    &[
        "cat",
        "echo",
        "env",
        "hostname",
        "httpd",
        "ip",
        "ls",
        "nc",
        "nslookup",
        "ping",
        "ping6",
        "ps",
        "sh",
        "sleep",
        "traceroute",
        "wget",
    ],
);

/// Makes the images that every cluster has, if they are missing or older than what is in them.
pub(crate) fn make(assets: &Assets) -> Result<Vec<PathBuf>, LabError> {
    let of = |name, program: &str, entrypoint| {
        let files = BTreeMap::from([(Path::new("/").join(program), assets.program(program))]);
        Image { name, files, links: None, entrypoint, arguments: &[] }
    };
    let mut agnhost = of(AGNHOST_IMAGE, "agnhost", &["/agnhost"]);
    agnhost.arguments = &["pause"];
    agnhost.files.insert(BUSYBOX.0.into(), installed("busybox", "busybox-static")?);
    agnhost.links = Some(BUSYBOX);
    let etcd = Image {
        name: ETCD_IMAGE,
        files: etcd_files()?,
        links: None,
        entrypoint: &[],
        arguments: &["/usr/local/bin/etcd"],
    };
    let images = [
        ("pause", of(PAUSE_IMAGE, "pause", &["/pause"])),
        ("coredns", of(COREDNS_IMAGE, "coredns", &["/coredns"])),
        ("agnhost", agnhost),
        ("etcd", etcd),
    ];
    let folder = images_folder()?;
    fs::create_dir_all(&folder).map_err(LabError::io(folder.display().to_string()))?;
    let made = images.into_iter().map(|(name, image)| {
        let path = folder.join(format!("{name}.tar"));
        image.make(&path).map_err(LabError::io(path.display().to_string()))?;
        Ok(path)
    });
    made.collect()
}

/// Makes [`BUSYBOX_IMAGE`], if it is missing or older than what is in it; gives its archive, which is in the format that
/// `docker save` writes.
pub fn make_busybox() -> Result<PathBuf, LabError> {
    // Tests that want it at the same time.
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let image = Image {
        name: BUSYBOX_IMAGE,
        files: BTreeMap::from([(PathBuf::from(BUSYBOX.0), installed("busybox", "busybox-static")?)]),
        links: Some(BUSYBOX),
        entrypoint: &[],
        arguments: &["sh"],
    };
    let folder = images_folder()?;
    fs::create_dir_all(&folder).map_err(LabError::io(folder.display().to_string()))?;
    let path = folder.join("busybox.tar");
    image.make(&path).map_err(LabError::io(path.display().to_string()))?;
    Ok(path)
}

/// etcd and etcdctl where the project's own image has them, and the libraries that Debian's are linked with.
fn etcd_files() -> Result<BTreeMap<PathBuf, PathBuf>, LabError> {
    let programs = [installed("etcd", "etcd-server")?, installed("etcdctl", "etcd-client")?];
    let mut files = BTreeMap::new();
    for program in programs {
        let ldd = Command::new("ldd").arg(&program).output().map_err(LabError::io("running ldd"))?;
        let said = String::from_utf8_lossy(&ldd.stdout).into_owned();
        // A line gives a library's path last, before its address; the kernel's own library has none.
        for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
            files.insert(library.into(), library.into());
        }
        let name = program.file_name().unwrap_or_default();
        files.insert(Path::new("/usr/local/bin").join(name), program.clone());
    }
    Ok(files)
}

impl Image {
    /// Writes the image, unless it was made of the same files before.
    fn make(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("tar.inputs");
        let inputs = self.inputs()?;
        if path.exists() && fs::read_to_string(&beside).is_ok_and(|former| former == inputs) {
            return Ok(());
        }
        let draft = path.with_extension(format!("{}", std::process::id()));
        let written = self.write(BufWriter::new(File::create(&draft)?));
        let made = written.and_then(|()| fs::rename(&draft, path)).and_then(|()| fs::write(&beside, inputs));
        made.inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }

    /// Identifies the files that the image is made of, without reading them.
    fn inputs(&self) -> io::Result<String> {
        let mut text = format!("{} {:?} {:?} {:?}\n", self.name, self.entrypoint, self.arguments, self.links);
        for (path, source) in &self.files {
            let data = fs::metadata(source)?;
            let line = [path.display().to_string(), source.display().to_string(), data.len().to_string()];
            text.push_str(&format!("{} {}.{}\n", line.join(" "), data.mtime(), data.mtime_nsec()));
        }
        Ok(text)
    }

    fn write(&self, out: impl Write) -> io::Result<()> {
        let layer = self.layer()?;
        let digest = format!("{:x}", Sha256::digest(&layer));
        let config = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
            "history": [{ "created_by": "manx-lab" }],
        });
        let config = config.to_string().into_bytes();
        let config_name = format!("{:x}.json", Sha256::digest(&config));
        let layer_name = format!("{digest}/layer.tar");
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": [layer_name] }]);
        let mut archive = Builder::new(out);
        for (name, bytes) in [
            (config_name, config),
            (layer_name, layer),
            ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
        ] {
            append(&mut archive, Path::new(&name), 0o644, &bytes)?;
        }
        archive.into_inner()?.flush()
    }

    /// The files, the folders that lead to them, and a `/tmp`.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        let mut folders: Vec<PathBuf> =
            self.files.keys().flat_map(|path| path.ancestors().skip(1)).map(inside).collect();
        folders.sort();
        folders.dedup();
        for folder in folders.iter().filter(|folder| !folder.as_os_str().is_empty()) {
            append_folder(&mut archive, folder, 0o755)?;
        }
        append_folder(&mut archive, Path::new("tmp"), 0o1777)?;
        for (path, source) in &self.files {
            append(&mut archive, &inside(path), 0o755, &fs::read(source)?)?;
        }
        if let Some((target, names)) = self.links {
            for name in names {
                let mut header = Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                archive.append_link(&mut header, inside(&Path::new("/bin").join(name)), target)?;
            }
        }
        archive.into_inner()
    }
}

/// The path as an archive writes it.
fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn append(archive: &mut Builder<impl Write>, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

fn append_folder(archive: &mut Builder<impl Write>, path: &Path, mode: u32) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    archive.append_data(&mut header, path, io::empty())
}
