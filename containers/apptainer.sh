#!/usr/bin/env bash
# Apptainer for the tests, whatever else the machine has: the package of Debian's unstable suite
# and what it needs, unpacked in FOLDER. FOLDER/apptainer runs it, as root.
#   apptainer.sh FOLDER
set -euo pipefail
folder=$1
root=$folder/root apt=$folder/apt
mkdir -p "$root" "$apt/lists/partial" "$apt/cache/archives/partial"

mirror() { # the address that this machine has Debian's packages from
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' | sed -n 's/^Debian //p' | head -n 1
}

[ -n "$(mirror)" ] || apt-get update -qq
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $(mirror) sid main" >"$apt/sources.list"

# With no package installed, everything that Apptainer needs is downloaded, the C library included.
of_its_own() {
    apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
        -o Dir::State::lists="$apt/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}
of_its_own update
of_its_own install -y --download-only --no-install-recommends \
    apptainer dash libc-bin mount tar tzdata >/dev/null
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$root"
done
rm -rf "$apt"

# Debian's starter takes /usr/lib for its prefix, and looks for its folders there.
mkdir -p "$root/usr/lib/var/lib"
ln -s /var/lib/apptainer "$root/usr/lib/var/lib/apptainer"
ln -s /etc "$root/usr/lib/etc"
# Root in a container gets no capability: it could get none that root of this machine lacks.
sed -i 's/^root default capabilities = .*/root default capabilities = no/' \
    "$root/etc/apptainer/apptainer.conf"

# In a mount namespace of its own it sees its own /usr, and what it expects in /etc and /var/lib.
cat >"$folder/apptainer" <<END
#!/bin/sh
exec unshare --mount sh -c '
    mount -t overlay -o lowerdir=/etc:$root/etc overlay /etc &&
    mount -t overlay -o lowerdir=/var/lib:$root/var/lib overlay /var/lib &&
    mount --bind $root/usr /usr && exec /usr/bin/apptainer "\$@"' apptainer "\$@"
END
chmod +x "$folder/apptainer"
