#!/bin/sh
# New keys and leaves for server and client, by the CA that gen.sh made. A running server follows; nothing is restarted.
#
#   docker/tls/renew.sh [NAME]    NAME: how clients call the server (localhost)
set -eu
cd "$(dirname "$0")"
name=${1:-localhost}
days=365

if [ ! -e ca.key ]; then
    printf 'renew.sh: %s has no ca.key; make one with gen.sh\n' "$PWD" >&2
    exit 1
fi
umask 077
work=$(mktemp -d ./.renew.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# leaf STEM USAGE
leaf() {
    openssl req -newkey rsa:2048 -nodes -keyout "$work/$1.key" -out "$work/$1.csr" -subj "/CN=$name" 2>/dev/null
    printf 'basicConstraints = CA:FALSE\nkeyUsage = digitalSignature, keyEncipherment\nextendedKeyUsage = %s\nsubjectAltName = DNS:%s, IP:127.0.0.1\n' \
        "$2" "$name" > "$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days "$days" \
        -extfile "$work/$1.ext" -out "$work/$1.pem" 2>/dev/null
    chmod 644 "$work/$1.pem"
}
leaf server serverAuth
leaf client clientAuth

# Each file is replaced by a rename. Between key and leaf they do not fit; the server keeps what it has until they do.
for stem in server client; do
    mv "$work/$stem.key" "$stem.key"
    mv "$work/$stem.pem" "$stem.pem"
done
printf 'renew.sh: new leaves for %s until %s\n' "$name" "$(openssl x509 -in server.pem -noout -enddate | cut -d= -f2)"
