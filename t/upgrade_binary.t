#!/usr/bin/env perl

# Tests for a binary upgrade (USR2): the second nginx begins with what the file
# says, and warns of it, once.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/alive end_process wait_until/;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone/)
	->plan(11);

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

        location /control {
            upstream_control;
        }

        location /status {
            upstream_status;
        }
    }
}
CONF

my $WARNING = qr/\[warn\] \d+#\d+: binary upgrade: run-time changes of the old nginx are not taken over, and until it ends a change reaches only the one of the two that answers/;

# An nginx in the foreground ignores the signal.
$t->write_file('upgrade.conf', $t->read_file('nginx.conf')
	=~ s/^daemon off;/daemon on;/mr =~ s/nginx\.pid/upgrade.pid/r);
my @nginx = ($t->binary()->path(), '-p', $t->testdir() . '/', '-c',
	'upgrade.conf', '-e', 'error.log');

my @masters;

# None is left, whatever happens.
END { end_process($_) for grep { alive($_) } reverse @masters }

is(system(@nginx), 0, 'an nginx in the background');
my $old = master('upgrade.pid');

is(control('/control?upstream=u&peer=0&down=')->status(), 200, 'a change');
is(scalar(() = $t->grep_log($WARNING)), 0, 'an nginx alone does not warn');

kill USR2 => $old;
my $new = master('upgrade.pid', $old);
ok($new, 'another nginx begins');
ok($t->wait_for(sub { $t->grep_log($WARNING) }, 10, 'the warning'), 'it warns');

kill QUIT => $old;
ok(wait_until(sub { !alive($old) }, 10), 'the old one ends');
is(state_of(0), 'up', 'the new one goes by the file');
is(control('/control?upstream=u&peer=1&down=')->status(), 200,
	'and can be controlled');
is(state_of(1), 'down', 'as ever');

kill HUP => $new;
ok($t->wait_for(sub { state_of(1) eq 'up' }, 10, 'a reload'), 'and reloaded');
is(scalar(() = $t->grep_log($WARNING)), 1, 'the warning comes once')
	or diag($t->grep_log($WARNING));

# The pid in the file, once it is another one than that.
sub master ($file, $before = 0) {
	my $pid = 0;
	wait_until(sub {
		($pid) = (eval { $t->read_file($file) } // '') =~ /\A(\d+)\n/;
		return $pid && $pid != $before;
	}, 15) or die "no $file\n";
	push @masters, $pid;
	return $pid;
}

sub state_of ($peer) {
	return get_json('/status')->{upstreams}{u}{peers}[$peer]{state};
}
