#!/bin/sh
# Makes what compose.tls.yaml mounts: a CA, a leaf for the server and one for a client, RSA 2048, in this folder.
#
#   docker/tls/gen.sh [NAME]      NAME: how clients call the server (localhost)
#
# It overwrites nothing. Later leaves, by the same CA: renew.sh.
set -eu
cd "$(dirname "$0")"
name=${1:-localhost}
days=3650

if [ -e ca.key ] || [ -e ca.pem ]; then
    printf 'gen.sh: %s has a CA already; new leaves come from renew.sh. To begin anew remove *.pem, *.key and *.srl there\n' "$PWD" >&2
    exit 1
fi
umask 077
# The folder that rows are kept in: made here, it is yours; made by the engine, it would be root's.
mkdir -p ../volumes/milvus
openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days "$days" -keyout ca.key -out ca.pem -subj "/CN=$name CA" \
    -addext "keyUsage = critical, keyCertSign, cRLSign" 2>/dev/null
chmod 644 ca.pem
./renew.sh "$name"
