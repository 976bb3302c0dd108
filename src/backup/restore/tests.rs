//! What a restore brings back, and the damage that it refuses with nothing touched.

use super::super::archive::{HEADER, MANIFEST};
use super::super::create::{Source, Work};
use super::*;
use crate::model::Secret;
use crate::proc::Exec;
use crate::store::Setting;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use tar::{Builder, EntryType, Header as TarHeader};

const SECRET: &str = "ghp_a-secret-in-the-database";
const APP: &str = "apps/abcdefghij/data";

fn key(byte: &str) -> Key {
    Key::parse(&byte.repeat(32)).unwrap()
}

fn open(data: &DataDir, byte: &str) -> Store {
    Store::open(&data.join(DATABASE), Vault::new(key(byte))).unwrap()
}

/// A data directory with a database and a file of an app, and a backup of the database.
fn filled() -> (tempfile::TempDir, DataDir, Vec<Part>) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    open(&data, "07").set_setting(Setting::GithubToken, Some(&Secret::new(SECRET.into()))).unwrap();
    fs::create_dir_all(data.join(APP)).unwrap();
    fs::write(data.join(APP).join("file"), "of the app").unwrap();
    let source = Source { data: &data, host: None, tell: &|_| () };
    let backup = dir.path().join("backup");
    let to = File::create(&backup).unwrap();
    let work = Work::new(&data).unwrap();
    assert!(source.write(to.into(), &work, &Cancel::new().unwrap()).unwrap().is_empty());
    drop(work);
    let parts = parts(&backup);
    (dir, data, parts)
}

/// A member as it is in an archive.
#[derive(Clone)]
struct Part(TarHeader, Vec<u8>);

impl Part {
    /// With a path and a target as they are given, which the crate would refuse.
    fn new(kind: EntryType, path: &str, target: &str, content: &[u8]) -> Self {
        let mut header = TarHeader::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        Self(header, content.to_vec())
    }

    fn name(&self) -> String {
        String::from_utf8(self.0.path_bytes().into_owned()).unwrap()
    }

    fn line(&self) -> String {
        let target = self.0.link_name_bytes().unwrap_or_default();
        let hash = Sha256::new().chain_update(&self.1).chain_update(target).finalize();
        format!("{}  {}\n", HEXLOWER.encode(&hash), self.name())
    }
}

fn parts(backup: &Path) -> Vec<Part> {
    let tar = Exec::new("gzip").args(["-dc"]).arg(backup).run().unwrap().stdout;
    let mut archive = tar::Archive::new(&*tar);
    let part = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        Part(entry.header().clone(), content)
    };
    archive.entries().unwrap().map(part).collect()
}

fn packed(parts: &[Part]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for Part(header, content) in parts {
        let mut header = header.clone();
        header.set_cksum();
        tar.append(&header, &**content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The same members and `more`, with a manifest that fits them.
fn with(parts: &[Part], more: &[Part]) -> Vec<u8> {
    let mut parts: Vec<_> = parts.iter().filter(|part| part.name() != MANIFEST).cloned().collect();
    parts.extend_from_slice(more);
    let manifest: String = parts.iter().map(Part::line).collect();
    parts.push(Part::new(EntryType::Regular, MANIFEST, "", manifest.as_bytes()));
    packed(&parts)
}

fn gzip(place: &Path, tar: &[u8]) {
    let from = place.with_extension("tar");
    fs::write(&from, tar).unwrap();
    let exec = Exec::new("gzip").args(["-c"]).arg(&from).writing(File::create(place).unwrap());
    assert!(exec.run().unwrap().exit.is_success());
}

/// All files with their content; the lock of a backup aside.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(content(&path));
            all.insert(path, Vec::new());
        } else if entry.file_name() != "backup-lock" {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A database to which a script of Python does something, with a manifest that fits.
fn changed(dir: &Path, parts: &[Part], sql: &str) -> Vec<u8> {
    let place = dir.join("changed.db");
    let mut parts = parts.to_vec();
    let database = parts.iter_mut().find(|part| part.name() == DATABASE).unwrap();
    fs::write(&place, &database.1).unwrap();
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); \
                  c.commit()";
    let exec = Exec::new("python3").args(["-c", script]).arg(&place).arg(sql);
    assert!(exec.run().unwrap().exit.is_success());
    *database = Part::new(EntryType::Regular, DATABASE, "", &fs::read(&place).unwrap());
    with(&parts, &[])
}

/// Everything that is wrong with a backup, and what has to be said.
fn damages(parts: &[Part]) -> Vec<(Vec<u8>, &'static str)> {
    let altered = |name: &str| {
        let mut parts = parts.to_vec();
        let part = parts.iter_mut().find(|part| part.name() == name).unwrap();
        let digit = part.1.iter().position(u8::is_ascii_digit).unwrap();
        part.1[digit] ^= 1;
        packed(&parts)
    };
    let and = |kind, path, target| with(parts, &[Part::new(kind, path, target, b"")]);
    let top = Part::new(EntryType::Directory, APP, "", b"");
    let below = |kind, name: &str, target: &str| {
        let path = format!("{APP}/{name}");
        with(parts, &[top.clone(), Part::new(kind, &path, target, b"")])
    };
    let link = Part::new(EntryType::Symlink, &format!("{APP}/dir"), ".", b"");
    let through = Part::new(EntryType::Regular, &format!("{APP}/dir/file"), "", b"x");
    let file = Part::new(EntryType::Regular, &format!("{APP}/file"), "", b"x");
    let mut bomb = Part::new(EntryType::Regular, &format!("{APP}/bomb"), "", b"");
    bomb.0.set_size(1 << 60);
    let mut timeless = Part::new(EntryType::Regular, &format!("{APP}/file"), "", b"x");
    timeless.0.set_mtime(u64::MAX);
    let long = Part::new(EntryType::GNULongName, "long", "", &[b'x'; 5000]);
    let whole = with(parts, &[]);
    let cut = |bytes: usize| whole[..whole.len() - bytes].to_vec();
    vec![
        (b"no backup at all".to_vec(), ""),
        (cut(2000), "cut off"),
        (cut(1024), "cut off"),
        ([&whole[..], &[1; 512]].concat(), "something follows its end"),
        (altered(DATABASE), "it was altered"),
        (altered(HEADER), "it was altered"),
        (altered(MANIFEST), "it was altered"),
        (packed(&parts[..2]), "before its manifest"),
        (packed(&[parts, std::slice::from_ref(&top)].concat()), "follows its manifest"),
        (packed(&parts[1..]), "no header"),
        (with(&parts[..1], &[]), "no database"),
        (and(EntryType::Regular, "secret.key", ""), "is nothing that a backup has"),
        (and(EntryType::Regular, "apps/../../x", ""), "is nothing that a backup has"),
        (and(EntryType::Regular, "/etc/cron.d/x", ""), "is nothing that a backup has"),
        (and(EntryType::Regular, "apps/abcdefghij/data/../x", ""), "is nothing that"),
        (and(EntryType::Directory, "apps/abcdefghij/releases", ""), "is nothing that"),
        (and(EntryType::Symlink, APP, "/etc"), "leads elsewhere"),
        (below(EntryType::Symlink, "link", "/etc/passwd"), "leads elsewhere"),
        (below(EntryType::Symlink, "link", "../x"), "leads elsewhere"),
        (below(EntryType::Symlink, "link", "a/../../../x"), "leads elsewhere"),
        (below(EntryType::Link, "hard", HEADER), "is nothing that a backup has"),
        (below(EntryType::Char, "null", ""), "is nothing that a backup has"),
        (below(EntryType::Block, "disk", ""), "is nothing that a backup has"),
        (below(EntryType::Fifo, "pipe", ""), "is nothing that a backup has"),
        (with(parts, &[top.clone(), link, through]), "no directory in it leads to"),
        (with(parts, &[top.clone(), file.clone(), file]), "is there twice"),
        (with(parts, &[top.clone(), top.clone()]), "is there twice"),
        (with(parts, &parts[..1]), "is there twice"),
        (with(parts, &parts[1..2]), "is there twice"),
        (packed(&[&parts[..2], &[top.clone(), bomb]].concat()), "has no room"),
        (packed(&[&parts[..2], &[long]].concat()), "is too long"),
        (with(parts, &[top.clone(), timeless]), "is of no time"),
    ]
}

/// The same of the database alone, which is as the manifest says.
fn databases(dir: &Path, parts: &[Part]) -> [(Vec<u8>, &'static str); 4] {
    let trigger = "CREATE TRIGGER t AFTER UPDATE ON apps BEGIN DELETE FROM env; END";
    let value = "UPDATE settings SET value = substr(value, 1, 40) || 'AAAA' || substr(value, 45)";
    [
        (changed(dir, parts, "PRAGMA user_version = 99"), "a newer version"),
        (changed(dir, parts, "CREATE VIEW v AS SELECT 1"), "triggers or views"),
        (changed(dir, parts, trigger), "triggers or views"),
        (changed(dir, parts, value), "nothing was changed"),
    ]
}

#[test]
fn p29_a_damaged_backup_is_refused_and_nothing_is_touched() {
    let (dir, data, parts) = filled();
    let before = content(data.path());
    let backup = dir.path().join("damaged");
    let mut cases = damages(&parts);
    cases.extend(databases(dir.path(), &parts));
    for (number, (tar, sentence)) in cases.iter().enumerate() {
        gzip(&backup, tar);
        let refused = restore(&data, File::open(&backup).unwrap().into(), (&key("07"), true));
        let error = refused.expect_err(sentence).to_string();
        assert!(error.contains(sentence), "{number}: {sentence:?}: {error}");
        assert_eq!(content(data.path()), before, "{number}: {sentence}");
    }
    gzip(&backup, &with(&parts, &[]));
    let whole = fs::read(&backup).unwrap();
    fs::write(&backup, &whole[..whole.len() - 9]).unwrap();
    for key in [key("07"), key("08")] {
        let refused = restore(&data, File::open(&backup).unwrap().into(), (&key, true));
        let sentence = if key.id() == self::key("07").id() { "end of file" } else { "wants key" };
        assert!(refused.unwrap_err().to_string().contains(sentence));
        assert_eq!(content(data.path()), before);
        fs::write(&backup, &whole).unwrap();
    }
}

#[test]
fn p29_a_restore_keeps_what_it_replaces() {
    let (dir, data, parts) = filled();
    fs::write(data.join(key::FILE), "the old key").unwrap();
    open(&data, "07").set_setting(Setting::GithubToken, None).unwrap();
    let long = format!("{APP}/{}", "long".repeat(40));
    let mut name = Part::new(EntryType::GNULongName, "././@LongLink", "", b"");
    name.1 = [long.as_bytes(), b"\0"].concat();
    name.0.set_size(name.1.len() as u64);
    let mut tar = parts[..2].to_vec();
    let file = Part::new(EntryType::Regular, &long[..99], "", b"new");
    tar.extend([Part::new(EntryType::Directory, APP, "", b""), name, file]);
    let lines: Vec<_> = tar.iter().filter(|part| part.name() != "././@LongLink").collect();
    let manifest: String = lines.iter().map(|part| part.line()).collect();
    let manifest = manifest.replace(&long[..99], &long);
    tar.push(Part::new(EntryType::Regular, MANIFEST, "", manifest.as_bytes()));
    let backup = dir.path().join("backup");
    gzip(&backup, &packed(&tar));
    let restored = restore(&data, File::open(&backup).unwrap().into(), (&key("07"), true));
    let (header, before) = restored.unwrap();
    assert_eq!((header.schema, header.key_id), (7, key("07").id()));
    assert_eq!(fs::read(before.join(key::FILE)).unwrap(), b"the old key");
    assert_eq!(fs::read(before.join(APP).join("file")).unwrap(), b"of the app");
    assert!(before.join(DATABASE).is_file() && !data.join(APP).join("file").exists());
    assert_eq!(fs::read(data.join(&long)).unwrap(), b"new");
    assert!(open(&data, "07").setting_saved_at(Setting::GithubToken).unwrap().is_some());
    let text = fs::read_to_string(data.join(key::FILE)).unwrap();
    assert_eq!(Key::parse(&text).unwrap().id(), key("07").id());
}

/// A database of schema 5 with one app, as an earlier version has left it.
const OLDER: &str = include_str!("../../../tests/it/fixtures/databases/schema_5.sql");
const OLDER_APP: &str = "apps/ftb5pi43ni/data";

fn older(dir: &Path, parts: &[Part], more: &[Part]) -> PathBuf {
    let (place, backup) = (dir.join("older.db"), dir.join("older"));
    let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
    let exec = Exec::new("python3").args(["-c", script]).arg(&place).arg(OLDER);
    assert!(exec.run().unwrap().exit.is_success());
    let database = Part::new(EntryType::Regular, DATABASE, "", &fs::read(&place).unwrap());
    gzip(&backup, &with(&[&[parts[0].clone(), database], more].concat(), &[]));
    backup
}

#[test]
fn p29_a_backup_of_an_older_schema_is_restored_and_what_it_lacks_stays() {
    let (dir, data, parts) = filled();
    fs::create_dir_all(data.join(OLDER_APP)).unwrap();
    fs::write(data.join(OLDER_APP).join("file"), "stays").unwrap();
    let backup = older(dir.path(), &parts, &[]);
    let restored = restore(&data, File::open(&backup).unwrap().into(), (&key("07"), false));
    let (_, before) = restored.unwrap();
    assert_eq!(open(&data, "07").apps().unwrap().len(), 1);
    assert_eq!(fs::read(data.join(OLDER_APP).join("file")).unwrap(), b"stays");
    // That of an app that is not in the backup is put aside.
    assert!(before.join(APP).join("file").exists() && !data.join("restoring").exists());
    let has_data = Part::new(EntryType::Directory, OLDER_APP, "", b"");
    fs::remove_file(dir.path().join("older.db")).unwrap();
    let backup = older(dir.path(), &parts, &[has_data]);
    // Two in one second would have one name for what was there before.
    rename(&before, dir.path().join("before")).unwrap();
    restore(&data, File::open(&backup).unwrap().into(), (&key("07"), false)).unwrap();
    assert!(!data.join(OLDER_APP).join("file").exists());
}

#[test]
fn p29_what_cannot_be_put_aside_leaves_everything_where_it_was() {
    let (dir, data, parts) = filled();
    let backup = dir.path().join("backup");
    gzip(&backup, &with(&parts, &[]));
    let before = content(data.path());
    // Nothing is renamed to below itself.
    let aside = data.join("apps").join("abcdefghij");
    let names = [DATABASE, "apps"];
    let error = put_aside(&data, &aside, &names, || Ok(())).unwrap_err().to_string();
    assert!(
        error.contains("nothing was changed") && error.contains("data/apps could not"),
        "{error}"
    );
    assert_eq!(content(data.path()), before);
}
