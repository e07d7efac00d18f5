#!/usr/bin/env perl

# What the module costs: runs the rows of Bench::Row, prints a table and writes
# bench/results.md.
#
#   bench/run.pl [--null] [--no-file] [ROW...]
#
#   ROW        proxy, instructions, pools, change, lua, members, replace, status,
#              reload, memory, workers; all of them without
#   --null     leaves the module out of both sides: what is measured then is
#              the noise of the machine, and must come out at 1
#   --no-file  writes no file
#
# A run with --null or with chosen rows writes no file either.
#
# Environment: BENCH_BINARY (build/nginx-1.28/nginx) and BENCH_MODULE
# (build/nginx-1.28/ngx_http_upstream_control_module.so).  The row "lua" is of
# Debian's nginx and build/debian, whatever these say.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/../t/lib";

use Getopt::Long;

use Bench::Report;
use Bench::Row::Change;
use Bench::Row::Instructions;
use Bench::Row::Lua;
use Bench::Row::Members;
use Bench::Row::Memory;
use Bench::Row::Pools;
use Bench::Row::Proxy;
use Bench::Row::Reload;
use Bench::Row::Replace;
use Bench::Row::Status;
use Bench::Row::Workers;
use Bench::Session;

# In the order of the table.
my @ROWS = (
	[ proxy => 'Bench::Row::Proxy' ],
	[ instructions => 'Bench::Row::Instructions' ],
	[ pools => 'Bench::Row::Pools' ],
	[ change => 'Bench::Row::Change' ],
	[ lua => 'Bench::Row::Lua' ],
	[ members => 'Bench::Row::Members' ],
	[ replace => 'Bench::Row::Replace' ],
	[ status => 'Bench::Row::Status' ],
	[ reload => 'Bench::Row::Reload' ],
	[ memory => 'Bench::Row::Memory' ],
	[ workers => 'Bench::Row::Workers' ],
);

my $file = 1;

GetOptions('null' => \my $null, 'file!' => \$file)
	or die "usage: bench/run.pl [--null] [--no-file] [ROW...]\n";

my %wanted = map { $_ => 1 } @ARGV;
my %known = map { $_->[0] => 1 } @ROWS;
for my $name (sort keys %wanted) {
	die "there is no row \"$name\"\n" unless $known{$name};
}

$| = 1;

my $session = Bench::Session->new(root => "$FindBin::Bin/..", null => $null);
my $report = Bench::Report->new($session);

for my $row (@ROWS) {
	my ($name, $class) = @$row;
	next if %wanted && !$wanted{$name};

	$session->begin($name);
	$report->add($class->run($session));
	$session->end();
}

print "\n", $report->table(), "\n", $report->machine();

if ($file && !$null && !%wanted) {
	$report->write("$FindBin::Bin/results.md");
	print "\nwritten to bench/results.md\n";
}

# A goal that is missed on a busy machine is no failure of the program: the
# table says so.
exit 0;
