#!/usr/bin/env perl

# Tests for replacing the module's file while nginx runs, under requests: by
# the line that the documents have, followed by a reload, which keeps the old
# one, and by a restart.  A file that is written over, as by cp, takes nginx
# down: its processes have it mapped.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Cwd qw/abs_path/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/)->plan(14);

my $root = "$FindBin::Bin/..";
my $built = abs_path($ENV{TEST_NGINX_MODULE});
my $modules = $t->testdir() . '/modules';
my $installed = "$modules/ngx_http_upstream_control_module.so";

mkdir $modules or die "$modules: $!\n";

# What the documents say, with the places of this test.
my $line = '';

for my $file ('README.md', 'docs/lua.md') {
	my %lines = map { $_ => 1 }
		text($file) =~ m{^    sudo (.*\Qcontrol_module.so\E /\S+)$}mg;
	is(keys %lines, 1, "$file: the line that installs the module");
	($line) = keys %lines;
	$line =~ s{\S+/ngx_http_upstream_control_module\.so}{$built};
	$line =~ s{ /usr/lib/nginx/modules/}{ $modules/};
	like($line, qr{\Ainstall -m 644 \Q$built $modules\E/\z}, "$file: what it does");
}

my @files = map { s{^\Q$root/}{}r }
	glob "$root/{README.md,docs/*,nginx-conf/*,tools/*.sh,config.make}";
my @copies = grep { text($_) =~ /\bcp [^\n]*(?:\.so|_so|modules)\b/ } @files;
is("@copies", '', 'nothing copies the module by cp');

is(system($line), 0, 'install');
$ENV{TEST_NGINX_MODULE} = $installed;

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;

        location / {
            proxy_pass http://u;
        }

        %%CONTROL%%
    }
}
CONF

$t->backend("127.0.0.1:$_") for 8081, 8082;
$t->run();
$t->leak_keys('/status');

my $load = $t->load(uri => '/', seconds => 30);

is(system($line), 0, 'install over the file that runs');
is(control('/control?upstream=u&server=127.0.0.1:8081&down=')->status(), 200,
	'a change by the old one');
ok($t->reload(old_gone => 1), 'reload');
is_deeply([ mapped($t->pid(), $t->workers()) ], [ 'old' ],
	'the one that was loaded stays');
is(control('/control?upstream=u&server=127.0.0.1:8082&down=')->status(), 200,
	'a change after the reload');

my $got = $load->finish(now => 1);
is($got->{failed}, 0, 'no request failed');
cmp_ok($got->{ok}, '>', 10, 'there were requests');

$t->stop();
$t->run();
is_deeply([ mapped($t->pid(), $t->workers()) ], [ 'new' ],
	'after a restart the new one runs');

sub text ($name) {
	open my $fh, '<', "$root/$name" or die "$name: $!\n";
	local $/;
	return scalar <$fh>;
}

# Which file of the module processes have mapped: "new" or "old".
sub mapped (@pids) {
	my %seen;

	for my $pid (@pids) {
		open my $fh, '<', "/proc/$pid/maps" or return "$pid is gone";
		my @maps = grep { /\Q$installed\E/ } <$fh>;
		$seen{ / \(deleted\)$/ ? 'old' : 'new' } = 1 for @maps;
	}

	return sort keys %seen;
}
