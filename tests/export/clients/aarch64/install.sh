#!/usr/bin/env bash
# install.sh FOLDER PYTHON: put an ARM64 Python with LiteRT, and the emulator that runs it, into FOLDER.
#
# All comes from Debian 13 (the emulator of Debian 12, QEMU 7.2, crashes in LiteRT) and PyPI, LiteRT in the version that
# PYTHON has. This needs a Debian with apt, but not root: nothing is installed into the system.
set -euo pipefail
folder=$1 python=$2 release=trixie
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1) ||
  { echo 'apt has no mirror of Debian among its sources; this needs a Debian' >&2; exit 1; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
rm -rf "$folder"
work=$folder.part
rm -rf "$work"
mkdir -p "$work"/{emulator,root/usr/lib,apt/state/lists/partial,apt/cache/archives/partial}
work=$(realpath "$work")
ln -s usr/lib "$work/root/lib"  # which Debian's base-files would do

# unpack ARCHITECTURE FOLDER PACKAGE...: with all that the packages need, into an empty folder.
unpack() {
  local architecture=$1 target=$2
  shift 2
  : > "$work/apt/none"
  echo "deb [signed-by=$keys] $mirror $release main" > "$work/apt/sources.list"
  local apt=(apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture"
    -o Dir::State="$work/apt/state" -o Dir::State::status="$work/apt/none" -o Dir::Cache="$work/apt/cache"
    -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root)
  "${apt[@]}" update
  "${apt[@]}" install --yes --download-only --no-install-recommends "$@" > /dev/null
  for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb --extract "$package" "$target"; done
  rm -f "$work"/apt/cache/archives/*.deb
}

unpack amd64 "$work/emulator" qemu-user
unpack arm64 "$work/root" python3-minimal python3.13 libstdc++6
version=$("$python" -c 'from importlib.metadata import version; print(version("ai-edge-litert"))')
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$work/packages" --python-version 3.13 \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  --only-binary=:all: "ai-edge-litert==$version" numpy pydantic pyyaml
rm -rf "$work/apt"
mv "$work" "$folder"
