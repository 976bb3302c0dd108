# What the scripts share: where the checkout is, and how what is missing gets installed.
# Sourced, not run. Leaves the caller in the top directory of the checkout.

# A relative DATA_DIR means relative to where the caller stands, so it is made absolute before we move.
if [ -n "${DATA_DIR:-}" ]; then
	DATA_DIR=$(realpath -m -- "$DATA_DIR")
	export DATA_DIR
fi
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

# A login shell would have it; a service or `su` does not.
if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
	PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
# Where Debian keeps what only root used to need (newer `useradd`, `nginx`).
PATH="$PATH:/usr/sbin:/sbin"
export PATH

say() { printf '%s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

# install PACKAGE...: through apt as root; anybody else is told the command to give to root.
install() {
	if ! command -v apt-get >/dev/null; then
		die "These packages are missing: $*. Install them with this system's package manager, then try again."
	elif [ "$(id -u)" -ne 0 ]; then
		die "These packages are missing. Install them, then try again:" "  sudo apt-get install --no-install-recommends $*"
	fi
	say "Installing: $*"
	refresh_apt
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

# Package lists are fetched once a run, and only when something is missing.
refresh_apt() {
	[ -z "${apt_is_fresh:-}" ] || return 0
	apt-get update -q >&2 || say "apt-get update failed; going on with the package lists that are there."
	apt_is_fresh=yes
}

# missing PROGRAM=PACKAGE...: adds to `wanted` the packages whose program (or file, when it has a slash) is not there.
wanted=()
missing() {
	local pair program
	for pair in "$@"; do
		program=${pair%%=*}
		case $program in
		*/*) [ -e "$program" ] || wanted+=("${pair#*=}") ;;
		*) command -v "$program" >/dev/null || wanted+=("${pair#*=}") ;;
		esac
	done
}

install_missing() {
	missing "$@"
	[ ${#wanted[@]} -eq 0 ] || install "${wanted[@]}"
	wanted=()
}

# at_least VERSION FLOOR
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# The version of a package that apt would install, without Debian's additions; empty when there is none.
candidate() { { apt-cache policy "$1" 2>/dev/null || true; } | sed -n 's/^  Candidate: \([0-9.]*\).*/\1/p'; }

cargo_version() { { cargo --version 2>/dev/null || true; } | sed -n 's/^cargo \([0-9.]*\).*/\1/p'; }

# need_rust [TOOL...]: a cargo that is new enough for Cargo.toml, and its subcommands TOOL (fmt, clippy).
need_rust() {
	local floor have tool
	floor=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	at_least "$(cargo_version)" "$floor" || use_versioned_rust
	have=$(cargo_version)
	if [ -z "$have" ] || ! at_least "$have" "$floor"; then
		install_rust "$floor" "$have"
	fi
	for tool in "$@"; do
		cargo "$tool" --version >/dev/null 2>&1 || install_rust_tool "$tool"
	done
}

# Ubuntu's newer Rusts lie beside that of the release, each in a directory with its version; the newest that is there goes
# first.
use_versioned_rust() {
	local newest
	newest=$(printf '%s\n' /usr/lib/rust-1.*/bin | sort -V | tail -n 1)
	[ ! -x "$newest/cargo" ] || PATH=$newest:$PATH
}

# The newest of them that apt knows, such as 1.97.
versioned_candidate() { { apt-cache pkgnames cargo-1. || true; } | sed -n 's/^cargo-\(1\.[0-9]*\)$/\1/p' | sort -V | tail -n 1; }

install_rust() {
	local floor=$1 have=$2 hint versioned
	hint="Rust $floor or newer is needed (found: ${have:-none}). Install it as https://rustup.rs says, then try again."
	command -v apt-get >/dev/null || die "$hint"
	[ "$(id -u)" -ne 0 ] || refresh_apt
	versioned=$(versioned_candidate)
	if at_least "${versioned:-0}" "$floor"; then
		install "cargo-$versioned" "rustc-$versioned"
		use_versioned_rust
	elif [ -n "$have" ]; then
		# What comes beside it would not be found before it.
		die "$hint"
	elif at_least "$(candidate cargo)" "$floor"; then
		install cargo rustc
	elif at_least "$(candidate cargo-web)" "$floor"; then
		# Debian keeps a recent Rust for its browsers beside the one of the release.
		install cargo-web rustc-web
	elif [ -n "$(candidate rustup)" ]; then
		install rustup
		# Without the minimal profile, a gigabyte of documentation comes along.
		rustup toolchain install stable --profile minimal >&2
		rustup default stable >&2
	else
		die "$hint"
	fi
	hash -r
	have=$(cargo_version)
	at_least "${have:-0}" "$floor" || die "$hint"
}

install_rust_tool() {
	local tool=$1 web versioned
	versioned=$(command -v cargo | sed -n 's|^/usr/lib/rust-\(.*\)/bin/cargo$|\1|p')
	if [ -n "$versioned" ]; then
		case $tool in
		fmt) install "rustfmt-$versioned" ;;
		*) install "rust-$versioned-$tool" ;;
		esac
		return
	fi
	if command -v rustup >/dev/null; then
		case $tool in
		fmt) rustup component add rustfmt >&2 ;;
		*) rustup component add "$tool" >&2 ;;
		esac
		return
	fi
	web=$(dpkg-query -W -f '${Status}' cargo-web 2>/dev/null | grep -c 'ok installed' || true)
	case $tool-$web in
	fmt-0) install rustfmt ;;
	fmt-*) install rustfmt-web ;;
	*-0) install rust-clippy ;;
	*) install rust-web-clippy ;;
	esac
}

# Programs that the server calls, and what compiling it takes.
need_build_tools() {
	install_missing git=git curl=curl cc=build-essential bwrap=bubblewrap newuidmap=uidmap \
		/etc/ssl/certs/ca-certificates.crt=ca-certificates
}

# The router, and what loads the firewall.
need_router() {
	local fresh=
	command -v caddy >/dev/null || fresh=yes
	install_missing caddy=caddy nft=nftables
	[ -z "$fresh" ] || stop_service caddy
}

# stop_service NAME: Debian starts what it installs; we start our own.
stop_service() {
	if [ -d /run/systemd/system ]; then
		systemctl disable --now "$1" >&2 || true
	elif [ -x "/etc/init.d/$1" ]; then
		"/etc/init.d/$1" stop >&2 || true
	fi
}

# Where cargo puts what it builds.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
