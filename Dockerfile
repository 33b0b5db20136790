# The book and its tests from nothing but this folder, the pinned image, Debian packages of one day and
# the Python packages of constraints.txt. REPRODUCING.md says how to run it and how to renew the pins.
#
# Python 3.11.16 on Debian 12, all platforms, of 19 September 2026: the digest is the one that the Docker
# Official Images list for python:3.11-slim-bookworm in docker-library/repo-info at 40cdaf3.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# the day whose Debian packages are installed
ARG SNAPSHOT=20260919T000000Z
RUN printf 'Types: deb\nURIs: http://snapshot.debian.org/archive/%s\nSuites: %s\nComponents: main\nCheck-Valid-Until: no\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' \
      "debian/$SNAPSHOT" 'bookworm bookworm-updates' "debian-security/$SNAPSHOT" bookworm-security \
      > /etc/apt/sources.list.d/debian.sources \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      chromium fonts-dejavu-core git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /book
COPY . .
# every package at the version of constraints.txt, also what builds one
RUN make .venv/.test && .venv/bin/python -m pip cache purge
RUN make book

# a folder with MNIST/raw and bible-corpus
VOLUME /data
ENV EXPERTBANK_DATA=/data
CMD ["bash", ".ci/run"]
