# Fetches a release of pard for Windows, checks it and puts it where the user's own programs are, without administrator.
#
#   install.ps1 [-Release VERSION] [-Prefix DIR] [-Uninstall]
#
# PARD_BASE_URL names another place to fetch from, which has vVERSION/pard-VERSION-TARGET.zip and .zip.sha256.
param(
    [string]$Release = '',
    [string]$Prefix = (Join-Path $env:LOCALAPPDATA 'Programs\pard'),
    [switch]$Uninstall
)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue' # Windows PowerShell downloads many times slower while it draws one

# Filled in when a release is made.
$Releases = ''
$Version = ''

function Stop-With([string]$Message) {
    [Console]::Error.WriteLine("install: $Message")
    exit 1
}

$Program = Join-Path $Prefix 'bin\pard.exe'
$Bin = Join-Path $Prefix 'bin'
$Path = [Environment]::GetEnvironmentVariable('Path', 'User')

if ($Uninstall) {
    if (-not (Test-Path $Program)) { Stop-With "there is no pard in $Prefix" }
    Remove-Item -Recurse -Force $Prefix
    $Rest = ($Path -split ';' | Where-Object { $_ -and $_ -ne $Bin }) -join ';'
    [Environment]::SetEnvironmentVariable('Path', $Rest, 'User')
    Write-Host "removed pard from $Prefix"
    exit 0
}

if ($Release) { $Version = $Release -replace '^v', '' }
$Base = if ($env:PARD_BASE_URL) { $env:PARD_BASE_URL } else { $Releases }
if (-not $Base) { Stop-With 'this copy of the script names no place to fetch from; set PARD_BASE_URL, or take a release''s own' }
if ($Version -notmatch '^[0-9A-Za-z.+-]+$') { Stop-With 'this copy of the script belongs to no release; name one by -Release' }
if (-not [Environment]::Is64BitOperatingSystem) { Stop-With 'there is no release for 32-bit Windows' }
# The folder is replaced whole, so it has to be pard's own.
if ((Test-Path $Prefix) -and (Get-ChildItem $Prefix) -and -not (Test-Path $Program)) {
    Stop-With "$Prefix holds something else; name another folder by -Prefix"
}

# Windows on ARM runs it, too.
$Name = "pard-$Version-x86_64-pc-windows-msvc"
$Work = Join-Path ([IO.Path]::GetTempPath()) ([IO.Path]::GetRandomFileName())
New-Item -ItemType Directory $Work | Out-Null
try {
    Write-Host "fetching $Name from $Base"
    foreach ($File in "$Name.zip.sha256", "$Name.zip") {
        try {
            Invoke-WebRequest -UseBasicParsing "$Base/v$Version/$File" -OutFile (Join-Path $Work $File)
        } catch {
            Stop-With "cannot fetch $Base/v$Version/${File}: $($_.Exception.Message)"
        }
    }
    $Archive = Join-Path $Work "$Name.zip"
    $Expected = ((Get-Content (Join-Path $Work "$Name.zip.sha256")) -split ' ')[0]
    $Found = (Get-FileHash -Algorithm SHA256 $Archive).Hash
    if ($Found -ne $Expected) {
        Stop-With "$Name.zip has the SHA-256 sum $Found instead of $Expected; nothing was installed"
    }
    Expand-Archive $Archive $Work
    # Tried before it takes the place of one that runs.
    & (Join-Path $Work "$Name\bin\pard.exe") --version | Out-Null
    if ($LASTEXITCODE -ne 0) { Stop-With "$Name does not run on this system" }
    if (Test-Path $Prefix) { Remove-Item -Recurse -Force $Prefix }
    New-Item -ItemType Directory -Force (Split-Path $Prefix) | Out-Null
    Move-Item (Join-Path $Work $Name) $Prefix
} finally {
    Remove-Item -Recurse -Force $Work
}

if (($Path -split ';') -notcontains $Bin) {
    [Environment]::SetEnvironmentVariable('Path', (@($Path -split ';' | Where-Object { $_ }) + $Bin) -join ';', 'User')
    Write-Host "$Bin is on your PATH from the next terminal on"
}
Write-Host "installed $(& $Program --version) in $Prefix; ``pard chat`` talks with a model, ``pard doctor`` checks this machine"
