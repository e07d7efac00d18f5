#!/bin/sh
# apt-folder.sh FOLDER SED: makes FOLDER/apt.conf, with which (APT_CONFIG) apt reads other sources than the machine's, and
# keeps what it reads in FOLDER: the machine's sources, as the sed expression changes them.
set -eu
folder=$1

rm -rf "$folder"
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/sources.list.d"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -f "$list" ]; then sed "$2" "$list" >"$folder/sources.list.d/$(basename "$list")"; fi
done
cat >"$folder/apt.conf" <<END
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$folder/sources.list.d";
Dir::State::Lists "$folder/lists";
Dir::Cache "$folder/cache";
APT::Sandbox::User "";
END
export APT_CONFIG="$folder/apt.conf"
# What is changed may not be there for each of the machine's sources.
apt-get update >"$folder/update.log" 2>&1 || true
