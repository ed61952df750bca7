class Pard < Formula
  desc "Language models on any GPU, by parallel-draft speculative decoding"
  homepage "@URL@"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

  on_macos do
    on_arm do
      url "@URL@/releases/download/v@VERSION@/pard-@VERSION@-aarch64-apple-darwin.tar.gz"
      sha256 "@SHA256 pard-@VERSION@-aarch64-apple-darwin.tar.gz@"
    end
    on_intel do
      url "@URL@/releases/download/v@VERSION@/pard-@VERSION@-x86_64-apple-darwin.tar.gz"
      sha256 "@SHA256 pard-@VERSION@-x86_64-apple-darwin.tar.gz@"
    end
  end

  on_linux do
    on_arm do
      url "@URL@/releases/download/v@VERSION@/pard-@VERSION@-aarch64-unknown-linux-gnu.tar.gz"
      sha256 "@SHA256 pard-@VERSION@-aarch64-unknown-linux-gnu.tar.gz@"
    end
    on_intel do
      url "@URL@/releases/download/v@VERSION@/pard-@VERSION@-x86_64-unknown-linux-gnu.tar.gz"
      sha256 "@SHA256 pard-@VERSION@-x86_64-unknown-linux-gnu.tar.gz@"
    end
  end

  def install
    bin.install "bin/pard"
    lib.install Dir["lib/libpard*"], "lib/pkgconfig"
    include.install "include/pard.h"
    man1.install Dir["share/man/man1/*"]
    bash_completion.install "share/bash-completion/completions/pard"
    zsh_completion.install "share/zsh/site-functions/_pard"
    fish_completion.install "share/fish/vendor_completions.d/pard.fish"
    doc.install Dir["share/doc/pard/*"]
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/pard --version")
  end
end
